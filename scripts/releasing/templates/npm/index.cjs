"use strict";

const fs = require("node:fs");
const path = require("node:path");

const root = path.join(__dirname, "golden");
const manifest = json("MANIFEST.json");
const notes = json("notes.json");
const listed = new Set(manifest.files.map((entry) => entry.path));
const files = manifest.files.filter((entry) => entry.cases > 0).map((entry) => entry.path);

const arrays = {
  F64: [Float64Array, "float64"],
  F32: [Float32Array, "float32"],
  I64: [BigInt64Array, "int64"],
  I32: [Int32Array, "int32"],
  I16: [Int16Array, "int16"],
  I8: [Int8Array, "int8"],
  U8: [Uint8Array, "uint8"],
  BOOL: [Uint8Array, "bool"],
  F16: [Uint16Array, "float16"], // their bits: Node has no array of them
  BF16: [Uint16Array, "bfloat16"],
};

function json(name) {
  return JSON.parse(fs.readFileSync(path.join(root, name), "utf8"));
}

function file(name) {
  if (!listed.has(name)) {
    throw new RangeError(`there is no file $${JSON.stringify(name)}; files lists those of cases, such as "L1/softmax.json"`);
  }
  return path.join(root, ...name.split("/"));
}

function cases(name) {
  return JSON.parse(fs.readFileSync(file(name), "utf8")).cases;
}

function tensors(name) {
  const beside = name.replace(/\.json$$/, ".safetensors");
  file(name);
  if (!listed.has(beside)) return new Map();
  const content = fs.readFileSync(file(beside));
  const start = 8 + Number(content.readBigUInt64LE(0));
  const header = JSON.parse(content.subarray(8, start).toString("utf8"));
  const found = new Map();
  for (const [key, said] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const [kind, dtype] = arrays[said.dtype];
    const bytes = Uint8Array.from(content.subarray(start + said.data_offsets[0], start + said.data_offsets[1]));
    found.set(key, { dtype, shape: said.shape, data: new kind(bytes.buffer) });
  }
  return found;
}

module.exports = { root, manifest, notes, files, file, cases, tensors };
