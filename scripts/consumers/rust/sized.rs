//! The generator of sized cases (golden/README.md) in Rust: words, tensors, probes and signs.
//!
//!     rustc -O -o sized sized.rs
//!     ./sized words SEED NAME FIRST COUNT
//!     ./sized tensor PROFILE SEED NAME ROWS COLUMNS [BELOW]
//!     ./sized probes SEED NAME LENGTH...
//!     ./sized signs SEED NAME COUNT

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D049BB133111EB);
    z ^ (z >> 31)
}

fn stream(seed: u64, name: &str) -> u64 {
    let start = 0xCBF29CE484222325;
    mix(seed.wrapping_add(name.bytes().fold(start, |h: u64, byte| (h ^ byte as u64).wrapping_mul(0x100000001B3))))
}

fn word(s: u64, i: u64) -> u64 {
    mix(s.wrapping_add((i + 1).wrapping_mul(0x9E3779B97F4A7C15)))
}

fn below(w: u64, n: u64) -> u64 {
    ((w >> 32) * n) >> 32
}

/// A number from its word, the word of its row, its column and the length of the row.
fn number(profile: &str, w: u64, row: u64, column: u64, n: u64) -> f64 {
    let scaled = |m: f64, e: i32| m * 2f64.powi(e);
    let sixes = ((w >> 58) + (w >> 52 & 63) + (w >> 46 & 63) + (w >> 40 & 63)) as f64 - 126.0;
    let (top, sign) = (w >> 57, if w & 1 == 1 { -1.0 } else { 1.0 });
    match profile {
        "positive" => scaled(top as f64 + 1.0, -6),
        "peaked" => scaled(sixes, if w & 15 == 0 { -1 } else { -5 }),
        "offset" => scaled(248.0 + (w >> 61) as f64, -5),
        "low" => -scaled(248.0 + (w >> 61) as f64, 2),
        "wide" => sign * scaled(128.0 + top as f64, (w >> 8 & 15) as i32 - 15),
        "subnormal" => sign * scaled((top | 1) as f64, -133),
        "masked" if w & 3 == 0 || row & 3 == 0 => f64::NEG_INFINITY,
        "outlier" if below(row, n) == column => if row & 1 == 1 { -1020.0 } else { 1020.0 },
        _ => scaled(sixes, -5), // normal
    }
}

/// Of probe j along an axis of n.
fn coordinate(w: u64, j: u64, n: u64) -> u64 {
    let tile = if w & 3 == 3 { 1024 } else { 32 << (w & 3) };
    match j {
        0..=7 => if w & 1 == 1 { n - 1 } else { 0 },
        8..=31 => (tile * below(w, n / tile + 1)).saturating_sub(w >> 2 & 1).min(n - 1),
        _ => below(w, n),
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let whole = |i: usize| words[i].parse::<u64>().expect("a whole number");
    let of = |kind: &str, i: usize| stream(whole(i), &format!("{kind}{}", words[i + 1]));
    match words.first().map(String::as_str) {
        Some("words") => (0..whole(4)).for_each(|i| println!("{:016x}", word(of("", 1), whole(3) + i))),
        Some("tensor") => {
            let (s, rows, n) = (of("", 2), whole(4), whole(5));
            for i in 0..rows * n {
                let (w, row) = (word(s, i), word(s, rows * n + i / n));
                match words.len() {
                    7 => println!("{}", below(w, whole(6))),
                    _ => println!("{:e}", number(&words[1], w, row, i % n, n)),
                }
            }
        }
        Some("probes") => {
            let s = of("probes.", 1);
            for j in 0..64 {
                let axes = (3..words.len()).map(|a| (word(s, 8 * j + a as u64 - 3), whole(a)));
                println!("{}", axes.fold(0, |place, (w, n)| place * n + coordinate(w, j, n)));
            }
        }
        Some("signs") => (0..whole(3)).for_each(|i| println!("{}", if word(of("signs.", 1), i) >> 63 == 1 { -1 } else { 1 })),
        _ => {
            eprintln!("usage: sized words | tensor | probes | signs ..., as the first lines of sized.rs say");
            std::process::exit(2);
        }
    }
}
