// Softmax, layer norm and attention with their gradients, for `refllm verify --serve`. Put yours in their place.
//
// An operation is given arrays {shape, data} and keywords; it returns its outputs and, where `d` has the gradients of
// these, those of its inputs. Below it stands all that the verifier needs: frames over standard input and output.
import { readSync, writeSync } from "node:fs";

const zeros = (shape) => ({ shape, data: new Float64Array(shape.reduce((a, b) => a * b, 1)) });

// A row of only -infinity gives zeros.
function softmaxRow(x) {
  const most = x.reduce((a, b) => (b > a || Number.isNaN(b) ? b : a), -Infinity);
  if (most === -Infinity) return x.map(() => 0);
  const e = x.map((v) => Math.exp(v - most));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((v) => v / sum);
}

function softmaxRowBack(y, dy) {
  const along = y.reduce((sum, v, i) => sum + v * dy[i], 0);
  return y.map((v, i) => v * (dy[i] - along));
}

function* rows(x, width) {
  for (let at = 0; width && at < x.data.length; at += width) yield at;
}

const operations = {
  softmax({ x }, _, d) {
    const y = zeros(x.shape), dx = zeros(x.shape), N = x.shape.at(-1);
    for (const at of rows(x, N)) {
      const row = softmaxRow(x.data.slice(at, at + N));
      y.data.set(row, at);
      if (d) dx.data.set(softmaxRowBack(row, d.y.data.slice(at, at + N)), at);
    }
    return [{ y }, { x: dx }];
  },

  layer_norm({ x, g, b }, { eps }, d) {
    const y = zeros(x.shape), dx = zeros(x.shape), dg = zeros(g.shape), db = zeros(b.shape), C = x.shape.at(-1);
    for (const at of rows(x, C)) {
      const row = x.data.slice(at, at + C);
      const mean = row.reduce((a, v) => a + v / C, 0);
      const r = 1 / Math.sqrt(row.reduce((a, v) => a + ((v - mean) * (v - mean)) / C, 0) + eps);
      const n = row.map((v) => (v - mean) * r);
      y.data.set(n.map((v, i) => v * g.data[i] + b.data[i]), at);
      if (!d) continue;
      const dy = d.y.data.slice(at, at + C);
      const dn = dy.map((v, i) => v * g.data[i]);
      const mean_dn = dn.reduce((a, v) => a + v / C, 0);
      const along = dn.reduce((a, v, i) => a + (v * n[i]) / C, 0);
      dx.data.set(dn.map((v, i) => r * (v - mean_dn - n[i] * along)), at);
      for (let i = 0; i < C; i++) {
        dg.data[i] += dy[i] * n[i];
        db.data[i] += dy[i];
      }
    }
    return [{ y }, { x: dx, g: dg, b: db }];
  },

  attention({ q, k, v }, { causal, allowed }, d) {
    const [T, D] = q.shape.slice(-2), S = k.shape.at(-2), E = v.shape.at(-1), lead = q.shape.slice(0, -2);
    const y = zeros([...lead, T, E]), dq = zeros(q.shape), dk = zeros(k.shape), dv = zeros(v.shape);
    const scale = 1 / Math.sqrt(D), batch = lead.reduce((a, b) => a * b, 1);
    const may = allowed ? allowing(allowed, lead) : () => true;
    for (let n = 0; n < batch; n++)
      for (let t = 0; t < T; t++) {
        const Q = (n * T + t) * D, Y = (n * T + t) * E, s = new Float64Array(S).fill(-Infinity);
        for (let j = 0; j < S; j++) {
          if ((causal && j > t + S - T) || !may(n, t, j)) continue;
          s[j] = 0;
          for (let i = 0; i < D; i++) s[j] += q.data[Q + i] * k.data[(n * S + j) * D + i] * scale;
        }
        const P = softmaxRow(s), dP = new Float64Array(S);
        for (let j = 0; j < S; j++)
          for (let e = 0; e < E; e++) {
            y.data[Y + e] += P[j] * v.data[(n * S + j) * E + e];
            if (!d) continue;
            dP[j] += d.y.data[Y + e] * v.data[(n * S + j) * E + e];
            dv.data[(n * S + j) * E + e] += P[j] * d.y.data[Y + e];
          }
        if (!d) continue;
        const ds = softmaxRowBack(P, dP);
        for (let j = 0; j < S; j++)
          for (let i = 0; i < D; i++) {
            dq.data[Q + i] += ds[j] * k.data[(n * S + j) * D + i] * scale;
            dk.data[(n * S + j) * D + i] += ds[j] * q.data[Q + i] * scale;
          }
      }
    return [{ y }, { q: dq, k: dk, v: dv }];
  },
};

// Whether query t of batch n may attend key j: the leading axes of the mask may be fewer, or of size 1.
function allowing(mask, lead) {
  const shape = [...Array(lead.length + 2 - mask.shape.length).fill(1), ...mask.shape];
  const at = (places) => places.reduce((sum, place, a) => sum * shape[a] + (shape[a] > 1 ? place : 0), 0);
  return (n, t, j) => {
    const places = lead.reduceRight((found, size) => {
      found.unshift(n % size);
      n = Math.floor(n / size);
      return found;
    }, []);
    return mask.data[at([...places, t, j])] !== 0;
  };
}

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

function answer(asked, data) {
  const operation = operations[asked.operation];
  if (!operation) return [{ skip: "no function" }, []];
  if (!["float64", "float32"].includes(asked.dtype)) return [{ skip: `no ${asked.dtype}` }, []];
  const [inputs, keywords, d] = ["inputs", "keywords", "cotangents"].map((group) => tensors(asked[group], data));
  const [outputs, gradients] = operation(inputs, keywords, Object.keys(d).length ? d : null);
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
  const [said, parts] = answer(asked, read(Number(lengths.readBigUInt64LE(8))));
  const text = Buffer.from(JSON.stringify({ id: asked.id, ...said })), data = Buffer.concat(parts);
  lengths.writeBigUInt64LE(BigInt(text.length), 0);
  lengths.writeBigUInt64LE(BigInt(data.length), 8);
  write(Buffer.concat([lengths, text, data]));
}
