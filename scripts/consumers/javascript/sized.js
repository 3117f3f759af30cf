// The generator of sized cases (golden/README.md) in JavaScript: words, tensors, probes and signs.
//
//     node sized.js words SEED NAME FIRST COUNT
//     node sized.js tensor PROFILE SEED NAME ROWS COLUMNS [BELOW]
//     node sized.js probes SEED NAME LENGTH...
//     node sized.js signs SEED NAME COUNT
"use strict";

const unsigned = (z) => BigInt.asUintN(64, z);

function mix(z) {
  z = unsigned((z ^ (z >> 30n)) * 0xBF58476D1CE4E5B9n);
  z = unsigned((z ^ (z >> 27n)) * 0x94D049BB133111EBn);
  return z ^ (z >> 31n);
}

function stream(seed, name) {
  let h = 0xCBF29CE484222325n;
  for (const byte of new TextEncoder().encode(name)) h = unsigned((h ^ BigInt(byte)) * 0x100000001B3n);
  return mix(unsigned(seed + h));
}

const word = (s, i) => mix(unsigned(s + (i + 1n) * 0x9E3779B97F4A7C15n));

const below = (w, n) => ((w >> 32n) * n) >> 32n;

const bits = (w, lowest, count) => Number((w >> BigInt(lowest)) & ((1n << BigInt(count)) - 1n));

/** A number from its word, the word of its row, its column and the length of the row. */
function number(profile, w, row, column, n) {
  const sixes = bits(w, 58, 6) + bits(w, 52, 6) + bits(w, 46, 6) + bits(w, 40, 6) - 126;
  const top = bits(w, 57, 7), sign = w & 1n ? -1 : 1;
  switch (profile) {
    case "positive": return (top + 1) * 2 ** -6;
    case "peaked": return sixes * 2 ** (bits(w, 0, 4) ? -5 : -1);
    case "offset": return (248 + bits(w, 61, 3)) * 2 ** -5;
    case "low": return -(248 + bits(w, 61, 3)) * 4;
    case "wide": return sign * (128 + top) * 2 ** (bits(w, 8, 4) - 15);
    case "subnormal": return sign * (top | 1) * 2 ** -133;
    case "masked": if (!(w & 3n) || !(row & 3n)) return -Infinity; break;
    case "outlier": if (below(row, n) === column) return row & 1n ? -1020 : 1020; break;
  }
  return sixes * 2 ** -5; // normal
}

/** Of probe j along an axis of n. */
function coordinate(w, j, n) {
  if (j < 8n) return w & 1n ? n - 1n : 0n;
  if (j >= 32n) return below(w, n);
  const tile = (w & 3n) === 3n ? 1024n : 32n << (w & 3n);
  let border = tile * below(w, n / tile + 1n);
  if (border) border -= (w >> 2n) & 1n;
  return border < n ? border : n - 1n;
}

function* lines([what, ...rest]) {
  if (what === "words") {
    const s = stream(BigInt(rest[0]), rest[1]);
    for (let i = 0n; i < BigInt(rest[3]); i++) yield word(s, BigInt(rest[2]) + i).toString(16).padStart(16, "0");
  } else if (what === "tensor") {
    const s = stream(BigInt(rest[1]), rest[2]), rows = BigInt(rest[3]), n = BigInt(rest[4]);
    for (let i = 0n; i < rows * n; i++) {
      const w = word(s, i), row = word(s, rows * n + i / n);
      yield rest.length === 6 ? below(w, BigInt(rest[5])) : number(rest[0], w, row, i % n, n);
    }
  } else if (what === "probes") {
    const s = stream(BigInt(rest[0]), `probes.${rest[1]}`), shape = rest.slice(2).map(BigInt);
    for (let j = 0n; j < 64n; j++) {
      yield shape.reduce((place, n, a) => place * n + coordinate(word(s, 8n * j + BigInt(a)), j, n), 0n);
    }
  } else if (what === "signs") {
    const s = stream(BigInt(rest[0]), `signs.${rest[1]}`);
    for (let i = 0n; i < BigInt(rest[2]); i++) yield word(s, i) >> 63n ? -1 : 1;
  } else {
    console.error("usage: sized words | tensor | probes | signs ..., as the first lines of sized.js say");
    process.exit(2);
  }
}

for (const line of lines(process.argv.slice(2))) console.log(String(line));
