// Softmax with its gradient as WebGPU shaders, for `refllm verify --serve`. Put your shader in its place.
// Not run by the tests: it needs a runtime with WebGPU and node's files, such as Deno.
//
// An operation is given arrays {shape, data} and keywords; it returns its outputs and, where `d` has the gradients of
// these, those of its inputs. Below it stands all that the verifier needs: frames over standard input and output.
import { readSync, writeSync } from "node:fs";
import process from "node:process";
import { Buffer } from "node:buffer";

const device = await (await navigator.gpu.requestAdapter()).requestDevice();

const FORWARD = `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> unused: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> N: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
  let at = id.x * N;
  var most = x[at];
  for (var i = 1u; i < N; i++) { most = max(most, x[at + i]); }
  var sum = 0.0 * f32(arrayLength(&unused));
  for (var i = 0u; i < N; i++) { sum += exp(x[at + i] - most); }
  for (var i = 0u; i < N; i++) { y[at + i] = exp(x[at + i] - most) / sum; }
}`;

const BACKWARD = `
@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> N: u32;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {
  let at = id.x * N;
  var along = 0.0;
  for (var i = 0u; i < N; i++) { along += y[at + i] * dy[at + i]; }
  for (var i = 0u; i < N; i++) { dx[at + i] = y[at + i] * (dy[at + i] - along); }
}`;

// One workgroup a row; both inputs and the output have the same size.
async function overRows(code, first, second, N) {
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ, UNIFORM } = GPUBufferUsage, size = first.length * 4;
  const [a, b, out] = [0, 0, COPY_SRC].map((usage) => device.createBuffer({ size, usage: STORAGE | COPY_DST | usage }));
  const width = device.createBuffer({ size: 4, usage: UNIFORM | COPY_DST });
  const read = device.createBuffer({ size, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(a, 0, Float32Array.from(first));
  device.queue.writeBuffer(b, 0, Float32Array.from(second));
  device.queue.writeBuffer(width, 0, Uint32Array.of(N));
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const entries = [a, b, out, width].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(first.length / N);
  pass.end();
  encoder.copyBufferToBuffer(out, 0, read, 0, size);
  device.queue.submit([encoder.finish()]);
  await read.mapAsync(GPUMapMode.READ);
  return new Float32Array(read.getMappedRange().slice(0));
}

const operations = {
  async softmax({ x }, _, d) {
    const N = x.shape.at(-1);
    const nothing = (row) => row.every((v) => v === -Infinity);
    for (let at = 0; at < x.data.length; at += N) if (nothing(x.data.slice(at, at + N))) return null;
    if (!x.data.length) return null; // not supported
    const y = await overRows(FORWARD, x.data, x.data, N);
    const dx = d ? await overRows(BACKWARD, y, d.y.data, N) : y;
    return [{ y: { shape: x.shape, data: y } }, { x: { shape: x.shape, data: dx } }];
  },
};

// --- frames: two lengths of eight bytes, a JSON object, and the bytes of its tensors ---------------------------------

const ARRAYS = { float64: Float64Array, float32: Float32Array, int64: BigInt64Array, bool: Uint8Array };

function read(count) {
  const content = Buffer.alloc(count);
  for (let had = 0; had < count; ) {
    const more = readSync(0, content, had, count - had);
    if (!more) process.exit(0); // the end of the questions
    had += more;
  }
  return content;
}

function write(content) {
  for (let sent = 0; sent < content.length; ) sent += writeSync(1, content, sent);
}

function tensors(entries, data) {
  const found = {};
  for (const [name, x] of Object.entries(entries)) {
    found[name] = x;
    if (x === null || typeof x !== "object") continue;
    if (!(x.dtype in ARRAYS)) throw new Error(`no arrays of ${x.dtype}`);
    const count = x.shape.reduce((a, b) => a * b, 1), bytes = ARRAYS[x.dtype].BYTES_PER_ELEMENT * count;
    const numbers = new ARRAYS[x.dtype](Uint8Array.from(data.subarray(x.at, x.at + bytes)).buffer);
    found[name] = { shape: x.shape, data: x.dtype === "float32" ? Float64Array.from(numbers) : numbers };
  }
  return found;
}

async function answer(asked, data) {
  const operation = operations[asked.operation];
  if (!operation) return [{ skip: "no function" }, []];
  if (asked.dtype !== "float32") return [{ skip: `no ${asked.dtype}` }, []];
  const [inputs, keywords, d] = ["inputs", "keywords", "cotangents"].map((group) => tensors(asked[group], data));
  const found = await operation(inputs, keywords, Object.keys(d).length ? d : null);
  if (!found) return [{ skip: "not for these shapes" }, []];
  const [outputs, gradients] = found;
  const said = { outputs: {}, gradients: {} }, parts = [];
  let at = 0;
  for (const [group, arrays] of Object.entries({ outputs, gradients: Object.keys(d).length ? gradients : {} }))
    for (const [name, x] of Object.entries(arrays)) {
      const bytes = new Uint8Array(ARRAYS[asked.dtype].from(x.data).buffer);
      said[group][name] = { dtype: asked.dtype, shape: x.shape, at };
      parts.push(bytes);
      at += bytes.length;
    }
  return [said, parts];
}

for (;;) {
  const lengths = read(16);
  const asked = JSON.parse(read(Number(lengths.readBigUInt64LE(0))).toString());
  const [said, parts] = await answer(asked, read(Number(lengths.readBigUInt64LE(8))));
  const text = Buffer.from(JSON.stringify({ id: asked.id, ...said })), data = Buffer.concat(parts);
  lengths.writeBigUInt64LE(BigInt(text.length), 0);
  lengths.writeBigUInt64LE(BigInt(data.length), 8);
  write(Buffer.concat([lengths, text, data]));
}
