/** A tensor in a file of cases: its numbers, or, from level 2 on, the name of the tensor beside. */
export type Tensor =
  | { dtype: string; shape: number[]; data: (number | boolean | "NaN" | "Infinity" | "-Infinity")[]; bits?: string[]; tensor?: string }
  | { tensor: string };

/** The exact answer, and S of the tolerance (golden/README.md). Without a condition it must be met exactly. */
export interface Truth {
  value: Tensor;
  condition?: Tensor;
}

export type Keyword = number | string | boolean | null | Tensor | Record<string, unknown>;

export interface Case {
  id: string;
  spec: string;
  section: string;
  operation: string;
  level: number;
  about: string;
  order: string[];
  inputs: Record<string, Tensor>;
  keywords: Record<string, Keyword>;
  cotangents?: Record<string, Tensor>;
  outputs?: Record<string, Truth>;
  gradients?: Record<string, Truth>;
  taps?: Record<string, Truth>;
  wide?: Record<string, Record<string, Tensor>>;
  conventions?: Record<string, string>;
  alternatives?: Record<string, { outputs: Record<string, Truth>; gradients?: Record<string, Truth> }>;
  margin?: number;
  erratum?: string;
  printed?: Record<string, unknown>;
  [more: string]: unknown;
}

export interface Manifest {
  format: number;
  spec_version: string;
  license: "CC0-1.0";
  files: { path: string; level: number; sha256: string; bytes: number; cases: number }[];
  cases: number;
  calibration: { C: number };
}

export interface Note {
  id: string;
  kind: string;
  mistake: string;
  /** The number of an entry of `effects`. */
  effect: number;
  links: string[];
  dtype?: string;
}

export interface Notes {
  format: number;
  effects: string[];
  notes: Note[];
  /** For each case the numbers of its notes. */
  cases: Record<string, number[]>;
}

/** A tensor of a safetensors file. float16 and bfloat16 are given as their bits. */
export interface Held {
  dtype: string;
  shape: number[];
  data: Float64Array | Float32Array | BigInt64Array | Int32Array | Int16Array | Int8Array | Uint8Array | Uint16Array;
}

/** The folder of the golden files. */
export const root: string;
export const manifest: Manifest;
export const notes: Notes;
/** The paths of the files of cases, "L1/softmax.json". */
export const files: string[];
/** Where a file of the manifest lies on the disk. */
export function file(path: string): string;
/** The cases of a file. */
export function cases(path: string): Case[];
/** The tensors beside a file of cases, by name; none at level 1. */
export function tensors(path: string): Map<string, Held>;
