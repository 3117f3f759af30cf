// The golden files from JavaScript: operations by hand, forward and backward, in float64, judged by the tolerance of
// golden/README.md. node alone, no packages.
//
//     node consumer.js check golden/L1/attention.json ...        reads the cases, prints what fails
//     refllm verify --cmd 'node consumer.js answer {request} {response}' --level 1
//     node consumer.js answer REQUEST RESPONSE [REQUEST RESPONSE ...]     several in one go
//
// Exit status: 0 all that ran is right, 1 something is wrong, 2 could not run. To check code of your own, put it in
// place of an operation below; the rest stays. Arrays are flat and row-major, dX is the gradient of X.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

// What is wrong with a file: the one line that the user reads.
class Malformed extends Error {}

function need(holds, what) {
  if (!holds) throw new Malformed(what);
}

// ---- Arrays: {shape, data}

const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
const last = (x) => (x.shape.length ? x.shape.at(-1) : 1);
const sameShape = (x, y) => x.shape.length === y.shape.length && x.shape.every((size, i) => size === y.shape[i]);

// An axis may be empty. The others are limited all the same: loops run over them.
function zeros(shape) {
  need(product(shape.filter((size) => size > 0)) <= 1 << 22, 'asks for an array of more than 4 million numbers');
  return { shape, data: new Float64Array(product(shape)) };
}

const like = (x) => zeros(x.shape);
const rowsOf = (x) => product(x.shape.slice(0, -1)); // along the last axis, also where they are empty
const map = (x, f) => ({ shape: x.shape, data: Float64Array.from(x.data, f) });

const SPECIAL = { NaN: NaN, Infinity: Infinity, '-Infinity': -Infinity };
const isObject = (x) => typeof x === 'object' && x !== null && !Array.isArray(x);

function readNumber(x, dtype, name) {
  if (dtype === 'float64' && typeof x === 'string' && Object.hasOwn(SPECIAL, x)) return SPECIAL[x];
  need(typeof x === (dtype === 'bool' ? 'boolean' : 'number'), `${name}: ${JSON.stringify(x)} is not a ${dtype}`);
  need(dtype === 'bool' || Number.isFinite(x), `${name}: a number is beyond float64`);
  need(dtype !== 'int64' || Number.isSafeInteger(x), `${name}: ${x} is not an integer, or too large`);
  return Number(x);
}

function tensor(record, name, dtype = 'float64') {
  need(isObject(record) && record.dtype === dtype, `${name} must be a tensor of ${dtype}`);
  const { shape, data } = record;
  const sizes = Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0);
  need(sizes && Array.isArray(data) && data.length === product(shape), `${name}: shape and data do not agree`);
  const read = zeros(shape);
  data.forEach((x, i) => { read.data[i] = readNumber(x, dtype, name); });
  return read;
}

// ---- The operations: (arrays, keywords) -> [outputs, back], where back(dy) gives the gradient of every array.

// y = x W (+ b)
function linear([x, W, b]) {
  need(x.shape.length && W.shape.length === 2 && last(x) === W.shape[0], 'x W: the widths differ');
  need(!b || (b.shape.length === 1 && b.shape[0] === W.shape[1]), 'b does not have the width of the output');
  const [I, O] = W.shape;
  const rows = rowsOf(x);
  const y = zeros([...x.shape.slice(0, -1), O]);
  for (let n = 0; n < rows; n++) {
    for (let o = 0; o < O; o++) {
      let sum = b ? b.data[o] : 0;
      for (let i = 0; i < I; i++) sum += x.data[n * I + i] * W.data[i * O + o];
      y.data[n * O + o] = sum;
    }
  }
  return [[y], (dy) => {
    const [dx, dW, db] = [like(x), like(W), zeros([O])];
    for (let n = 0; n < rows; n++) {
      for (let o = 0; o < O; o++) {
        const d = dy.data[n * O + o];
        for (let i = 0; i < I; i++) {
          dx.data[n * I + i] += d * W.data[i * O + o];
          dW.data[i * O + o] += d * x.data[n * I + i];
        }
        db.data[o] += d;
      }
    }
    return b ? [dx, dW, db] : [dx, dW];
  }];
}

// y = E[ids]
function embedding([E], keywords) {
  const ids = tensor(keywords.ids, 'ids', 'int64');
  need(E.shape.length === 2, 'E must be a table');
  need(ids.data.every((id) => id >= 0 && id < E.shape[0]), 'an id is outside the table');
  const C = E.shape[1];
  const y = zeros([...ids.shape, C]);
  ids.data.forEach((id, n) => y.data.set(E.data.subarray(id * C, (id + 1) * C), n * C));
  return [[y], (dy) => {
    const dE = like(E);
    ids.data.forEach((id, n) => {
      for (let i = 0; i < C; i++) dE.data[id * C + i] += dy.data[n * C + i];
    });
    return [dE];
  }];
}

// y = g h + b with h = (x - mean) / sqrt(var + eps)
function layerNorm([x, g, b], { eps }) {
  const C = last(x);
  need([g, b].every((p) => p.shape.length === 1 && p.shape[0] === C), 'g and b must have the width of x');
  const [y, h] = [like(x), like(x)];
  const scales = [];
  for (let n = 0; n < x.data.length; n += C) {
    const row = x.data.subarray(n, n + C);
    const mean = row.reduce((a, v) => a + v, 0) / C;
    const variance = row.reduce((a, v) => a + (v - mean) ** 2, 0) / C;
    const scale = 1 / Math.sqrt(variance + eps);
    scales.push(scale);
    for (let i = 0; i < C; i++) {
      h.data[n + i] = (row[i] - mean) * scale;
      y.data[n + i] = g.data[i] * h.data[n + i] + b.data[i];
    }
  }
  return [[y], (dy) => {
    const [dx, dg, db] = [like(x), like(g), like(b)];
    for (let n = 0; n < x.data.length; n += C) {
      let [mean, along] = [0, 0]; // of dh = g dy: its mean, and its mean along h
      for (let i = 0; i < C; i++) {
        mean += (g.data[i] * dy.data[n + i]) / C;
        along += (g.data[i] * dy.data[n + i] * h.data[n + i]) / C;
        dg.data[i] += dy.data[n + i] * h.data[n + i];
        db.data[i] += dy.data[n + i];
      }
      for (let i = 0; i < C; i++) {
        dx.data[n + i] = scales[n / C] * (g.data[i] * dy.data[n + i] - mean - h.data[n + i] * along);
      }
    }
    return [dx, dg, db];
  }];
}

// p = softmax(row); a row of only -Infinity gives zeros, one with NaN or Infinity only NaN.
// whole = log sum exp(row), 0 if the sum is.
function softmaxRow(row) {
  const most = row.reduce((a, b) => Math.max(a, b), -Infinity);
  const top = most === -Infinity ? 0 : most;
  const e = row.map((v) => Math.exp(v - top));
  const all = e.reduce((a, b) => a + b, 0);
  const sum = all === 0 ? 1 : all;
  return { p: e.map((v) => v / sum), whole: top + Math.log(sum) };
}

function softmax([x]) {
  const V = last(x);
  const y = like(x);
  for (let n = 0; n < x.data.length; n += V) y.data.set(softmaxRow(x.data.subarray(n, n + V)).p, n);
  return [[y], (dy) => {
    const dx = like(x);
    for (let n = 0; n < x.data.length; n += V) {
      let along = 0;
      for (let i = n; i < n + V; i++) along += y.data[i] * dy.data[i];
      for (let i = n; i < n + V; i++) dx.data[i] = y.data[i] * (dy.data[i] - along);
    }
    return [dx];
  }];
}

// -log softmax(logits)[target]; the mean is over the targets that are not ignored
function crossEntropy([logits], keywords) {
  const targets = tensor(keywords.targets, 'targets', 'int64');
  const { ignore, reduction } = keywords;
  const V = last(logits);
  need(['mean', 'sum', 'none'].includes(reduction), 'the reduction must be mean, sum or none');
  need(sameShape(logits, { shape: [...targets.shape, V] }), 'one target a row of logits is needed');
  const kept = [...targets.data.keys()].filter((n) => targets.data[n] !== ignore);
  need(kept.every((n) => targets.data[n] >= 0 && targets.data[n] < V), 'a target is outside the vocabulary');
  const weight = reduction === 'mean' && kept.length ? 1 / kept.length : 1;
  const place = (n) => (reduction === 'none' ? n : 0);
  const rows = kept.map((n) => softmaxRow(logits.data.subarray(n * V, (n + 1) * V)));
  const y = reduction === 'none' ? like(targets) : zeros([]);
  kept.forEach((n, r) => {
    y.data[place(n)] += weight * (rows[r].whole - logits.data[n * V + targets.data[n]]);
  });
  return [[y], (dy) => {
    const dx = like(logits);
    kept.forEach((n, r) => rows[r].p.forEach((p, i) => {
      dx.data[n * V + i] = weight * dy.data[place(n)] * (p - (i === targets.data[n] ? 1 : 0));
    }));
    return [dx];
  }];
}

// 1 - erf(x): a series of erf where few digits cancel, a continued fraction beyond, which keeps those of the tail.
function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  if (x < 1) {
    let [term, sum] = [x, x];
    for (let n = 1; term > 1e-18 * sum; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      sum += term;
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = x;
  for (let n = 200; n > 0; n--) fraction = x + n / 2 / fraction;
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / fraction;
}

// y = f(x), with the slope of f
const eachElement = (f, slope) => ([x]) => [[map(x, f)], (dy) => [map(x, (v, i) => slope(v) * dy.data[i])]];

const share = (x) => erfc(-x / Math.SQRT2) / 2;
const density = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
const geluErf = eachElement((x) => x * share(x), (x) => share(x) + x * density(x));

const A = Math.sqrt(2 / Math.PI);
const bend = (x) => Math.tanh(A * (x + 0.044715 * x ** 3));
const geluTanh = eachElement(
  (x) => (x * (1 + bend(x))) / 2,
  (x) => (1 + bend(x) + x * (1 - bend(x) ** 2) * A * (1 + 3 * 0.044715 * x * x)) / 2,
);
const relu = eachElement((x) => Math.max(x, 0), (x) => (x > 0 ? 1 : 0));

// allowed(n, t, s): may query t of matrix n see key s? The mask broadcasts to the shape (..., T, S).
function mask(keywords, shape) {
  if (keywords.allowed === null) return () => true;
  const allowed = tensor(keywords.allowed, 'allowed', 'bool');
  const [sizes, full] = [[...allowed.shape].reverse(), [...shape].reverse()]; // from the last axis on
  need(sizes.length <= full.length && sizes.every((size, i) => size === 1 || size === full[i]),
    'allowed does not broadcast to (..., T, S)');
  return (n, t, s) => {
    let [offset, stride, rest] = [0, 1, (n * full[1] + t) * full[0] + s];
    sizes.forEach((size, i) => {
      if (size > 1) offset += (rest % full[i]) * stride;
      rest = Math.floor(rest / full[i]);
      stride *= size;
    });
    return allowed.data[offset] === 1;
  };
}

// y = softmax(q k^T / sqrt(D)) v; causal: key <= query + S - T
function attention([q, k, v], keywords) {
  const leading = q.shape.slice(0, -2);
  const [T, D] = q.shape.slice(-2);
  const [S, E] = v.shape.slice(-2);
  need(q.shape.length >= 2 && v.shape.length >= 2, 'q, k and v must be stacks of matrices');
  need(sameShape(k, { shape: [...leading, S, D] }) && sameShape(v, { shape: [...leading, S, E] }),
    'the shapes of q, k and v do not fit');
  const allowed = mask(keywords, [...leading, T, S]);
  const scale = 1 / Math.sqrt(D);
  const y = zeros([...leading, T, E]);
  const weights = zeros([...leading, T, S]);
  const each = (f) => { // f(row of q, row of k and v, place among the weights)
    for (let n = 0; n < product(leading); n++) {
      for (let t = 0; t < T; t++) {
        for (let s = 0; s < S; s++) f(n * T + t, n * S + s, (n * T + t) * S + s, n, t, s);
      }
    }
  };
  const scores = like(weights);
  each((r, c, w, n, t, s) => {
    for (let d = 0; d < D; d++) scores.data[w] += q.data[r * D + d] * k.data[c * D + d] * scale;
    if ((keywords.causal && s > t + S - T) || !allowed(n, t, s)) scores.data[w] = -Infinity;
  });
  for (let w = 0; w < scores.data.length; w += S) weights.data.set(softmaxRow(scores.data.subarray(w, w + S)).p, w);
  each((r, c, w) => {
    for (let e = 0; e < E; e++) y.data[r * E + e] += weights.data[w] * v.data[c * E + e];
  });
  return [[y], (dy) => {
    const [dq, dk, dv, dw] = [like(q), like(k), like(v), like(weights)];
    each((r, c, w) => {
      for (let e = 0; e < E; e++) {
        dw.data[w] += dy.data[r * E + e] * v.data[c * E + e];
        dv.data[c * E + e] += dy.data[r * E + e] * weights.data[w];
      }
    });
    const along = new Float64Array(rowsOf(weights));
    each((r, c, w) => { along[r] += weights.data[w] * dw.data[w]; });
    each((r, c, w) => {
      const dscore = weights.data[w] * (dw.data[w] - along[r]) * scale;
      for (let d = 0; d < D; d++) {
        dq.data[r * D + d] += dscore * k.data[c * D + d];
        dk.data[c * D + d] += dscore * q.data[r * D + d];
      }
    });
    return [dq, dk, dv];
  }];
}

// p (1 - lr decay) - lr mhat / (sqrt(vhat) + eps); Adam instead adds decay p to the gradient
const adamStep = (decoupled) => ([p, g, m, v], { step, lr, beta1, beta2, eps, decay }) => {
  need([g, m, v].every((x) => sameShape(x, p)), 'p, g, m and v must have one shape');
  const gradient = map(g, (d, i) => (decoupled ? d : d + decay * p.data[i]));
  const m1 = map(m, (old, i) => beta1 * old + (1 - beta1) * gradient.data[i]);
  const v1 = map(v, (old, i) => beta2 * old + (1 - beta2) * gradient.data[i] ** 2);
  const p1 = map(p, (old, i) => {
    const update = m1.data[i] / (1 - beta1 ** step) / (Math.sqrt(v1.data[i] / (1 - beta2 ** step)) + eps);
    return (decoupled ? old * (1 - lr * decay) : old) - lr * update;
  });
  return [[p1, m1, v1], null];
};

// name: [inputs, outputs, function]
const OPERATIONS = new Map(Object.entries({
  linear: [['x', 'W', 'b'], ['y'], linear],
  matmul: [['x', 'W'], ['y'], linear],
  embedding: [['E'], ['y'], embedding],
  layer_norm: [['x', 'g', 'b'], ['y'], layerNorm],
  softmax: [['x'], ['y'], softmax],
  cross_entropy: [['logits'], ['y'], crossEntropy],
  relu: [['x'], ['y'], relu],
  gelu_erf: [['x'], ['y'], geluErf],
  gelu_tanh: [['x'], ['y'], geluTanh],
  attention: [['q', 'k', 'v'], ['y'], attention],
  adam: [['p', 'g', 'm', 'v'], ['p', 'm', 'v'], adamStep(false)],
  adamw: [['p', 'g', 'm', 'v'], ['p', 'm', 'v'], adamStep(true)],
}));

const named = (names, arrays) => Object.fromEntries(names.map((name, i) => [name, arrays[i]]));

// A case of a golden file and a request have these parts in common. null: not one of the operations here.
function run(record) {
  if (!OPERATIONS.has(record.operation)) return null;
  const [inputs, outputs, f] = OPERATIONS.get(record.operation);
  need(isObject(record.inputs) && isObject(record.keywords), 'inputs or keywords are missing');
  const [y, back] = f(inputs.map((name) => tensor(record.inputs[name], name)), record.keywords);
  if (!isObject(record.cotangents) || !('y' in record.cotangents)) return { outputs: named(outputs, y), gradients: {} };
  const dy = tensor(record.cotangents.y, 'the cotangent');
  need(back && sameShape(dy, y[0]), 'the cotangent does not have the shape of the output');
  return { outputs: named(outputs, y), gradients: named(inputs, back(dy)) };
}

// ---- check FILES: golden files of level 1

function readJson(file) {
  const record = JSON.parse(fs.readFileSync(file, 'utf8'));
  need(isObject(record), 'does not hold a JSON object');
  return record;
}

// What is wrong with y, or null: |y - t| <= C (u (S + |t| + max|t| along the last axis) + 2^-53 W) + tiny; only NaN
// meets NaN, only infinity infinity. u is 2^-53 here.
function fault(y, truth, wide, name, C) {
  need(isObject(truth), `${name} is missing`);
  const [t, S] = [tensor(truth.value, name), tensor(truth.condition, name)];
  const W = wide === undefined ? like(t) : tensor(wide, name);
  for (const x of [S, W]) {
    need(sameShape(t, x) && x.data.every((s) => s >= 0 && s < Infinity), `${name}: value and condition do not agree`);
  }
  if (!y || !sameShape(y, t)) return `${name} has another shape`;
  const size = (v) => (Number.isFinite(v) ? Math.abs(v) : 0);
  for (let i = 0; i < t.data.length; i++) {
    const start = i - (i % last(t));
    const row = t.data.subarray(start, start + last(t)).reduce((a, v) => Math.max(a, size(v)), 0);
    const [got, value] = [y.data[i], t.data[i]];
    const error = 2 ** -53 * (S.data[i] + Math.abs(value) + row + W.data[i]);
    const allowed = Number.isFinite(value) ? C * error + 2 ** -1022 : 0;
    if (!Object.is(got + 0, value + 0) && !(Math.abs(got - value) <= allowed)) { // NaN is NaN; -0 + 0 is 0
      const ratio = (Math.abs(got - value) / allowed).toPrecision(3);
      return `${name}[${i}] is ${got}, the truth ${value}: ${ratio} times the tolerance`;
    }
  }
  return null;
}

function checkFile(file, count) {
  const { calibration } = readJson(path.join(path.dirname(file), '..', 'MANIFEST.json'));
  need(isObject(calibration) && calibration.C > 0, 'the manifest holds no calibration');
  const { cases } = readJson(file);
  need(Array.isArray(cases) && cases.every(isObject), 'holds no list of cases');
  for (const record of cases) {
    const found = withName(record.id, () => run(record));
    if (!found) {
      count.skipped++;
      continue;
    }
    const faults = [];
    for (const group of ['outputs', 'gradients']) {
      for (const [name, truth] of Object.entries(record[group] ?? {})) {
        const what = group === 'outputs' ? name : `gradient ${name}`;
        const wide = record.wide?.[group]?.[name];
        faults.push(withName(record.id, () => fault(found[group][name], truth, wide, what, calibration.C)));
      }
    }
    need(faults.length, `${record.id}: holds nothing to compare with`);
    const wrong = faults.filter((line) => line !== null);
    for (const line of wrong) console.log(`FAIL ${record.id}: ${line}`);
    count[wrong.length ? 'failed' : 'passed']++;
  }
}

function check(files) {
  const count = { passed: 0, failed: 0, skipped: 0 };
  for (const file of files) withName(file, () => checkFile(file, count));
  console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`);
  if (count.failed) return 1;
  return count.passed ? 0 : 2;
}

// ---- answer REQUEST RESPONSE ...: for refllm verify

function written({ shape, data }) {
  return { dtype: 'float64', shape, data: Array.from(data, (x) => (Number.isFinite(x) ? x : String(x))) };
}

function answer(request, response) {
  const file = path.join(request, 'request.json');
  const found = withName(file, () => {
    const record = readJson(file);
    return record.dtype === 'float64' ? run(record) : null;
  });
  const each = (arrays) => Object.fromEntries(Object.entries(arrays).map(([name, x]) => [name, written(x)]));
  const reply = found
    ? { outputs: each(found.outputs), gradients: each(found.gradients) }
    : { skip: 'it does not have this operation in this dtype' };
  fs.writeFileSync(path.join(response, 'response.json'), `${JSON.stringify(reply)}\n`);
}

// The name of the file or the case before what is wrong with it.
function withName(name, f) {
  try {
    return f();
  } catch (error) {
    if (![Malformed, SyntaxError, RangeError].some((kind) => error instanceof kind)) throw error;
    throw new Malformed(`${name}: ${error.message}`);
  }
}

function main([way, ...words]) {
  try {
    if (way === 'check' && words.length) return check(words);
    if (way === 'answer' && words.length && words.length % 2 === 0) {
      for (let i = 0; i < words.length; i += 2) answer(words[i], words[i + 1]);
      return 0;
    }
    throw new Malformed('usage: node consumer.js check golden/L1/FILE.json ... | answer REQUEST RESPONSE ...');
  } catch (error) {
    if (!(error instanceof Malformed) && error.code === undefined) throw error;
    console.error(error.message.replace(/[^\x20-\x7e]+/g, ' '));
    return 2;
  }
}

process.exitCode = main(process.argv.slice(2));
