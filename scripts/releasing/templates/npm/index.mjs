import vectors from "./index.cjs";

export const { root, manifest, notes, files, file, cases, tensors } = vectors;
export default vectors;
