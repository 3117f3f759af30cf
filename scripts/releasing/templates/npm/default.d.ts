
declare const vectors: {
  root: typeof root;
  manifest: typeof manifest;
  notes: typeof notes;
  files: typeof files;
  file: typeof file;
  cases: typeof cases;
  tensors: typeof tensors;
};
export default vectors;
