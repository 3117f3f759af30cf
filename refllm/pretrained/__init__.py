"""Published models: a directory in the layout of Hugging Face is opened, used and written.

    DIR/config.json                     the architecture and its sizes
    DIR/model.safetensors               the tensors; or shards of them and model.safetensors.index.json
    DIR/tokenizer.json                  the tokenizer; or vocab.json and merges.txt, or vocab.txt

A file here for each architecture: its configuration as ours, and a table of the names of its tensors. Nothing is
guessed, nothing is unpickled, and nothing of the model's size is made before every name and shape has been compared.
"""
