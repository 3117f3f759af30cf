//! Softmax, layer norm and attention with their gradients, for `refllm verify --lib`. Put yours in their place.
//!
//! `numbers` and `write` are what this file needs of the interface (`refllm verify --header refllm.h` writes it):
//! contiguous numbers of a tensor with any strides, and back. A kernel that reads the tensor as it is does without.

use std::ffi::{c_char, c_int, c_void};
use std::slice::from_raw_parts;

#[repr(C)]
pub struct Tensor {
    data: *mut c_void,
    shape: *const i64,
    strides: *const i64, // in numbers
    name: *const c_char,
    axes: i32,
    dtype: i32,
}

const FLOAT64: i32 = 1;
const FLOAT32: i32 = 2;
const DONE: c_int = 0;
const NOT_SUPPORTED: c_int = 1;

impl Tensor {
    fn shape(&self) -> &[i64] {
        unsafe { from_raw_parts(self.shape, self.axes as usize) }
    }

    fn strides(&self) -> &[i64] {
        unsafe { from_raw_parts(self.strides, self.axes as usize) }
    }

    /// The size of an axis, counted from the last one.
    fn last(&self, from_the_end: usize) -> usize {
        self.shape()[self.shape().len() - from_the_end] as usize
    }

    fn size(&self) -> usize {
        self.shape().iter().product::<i64>() as usize
    }

    fn known(&self) -> bool {
        self.dtype == FLOAT64 || self.dtype == FLOAT32
    }

    fn numbers(&self) -> Vec<f64> {
        (0..self.size() as i64)
            .map(|i| {
                let (mut at, mut rest) = (0, i);
                for (n, step) in self.shape().iter().zip(self.strides()).rev() {
                    at += rest % n * step;
                    rest /= n;
                }
                unsafe {
                    match self.dtype {
                        FLOAT64 => *(self.data as *const f64).offset(at as isize),
                        _ => *(self.data as *const f32).offset(at as isize) as f64,
                    }
                }
            })
            .collect()
    }

    /// What is written to is contiguous.
    fn write(&self, values: &[f64]) {
        for (i, &value) in values.iter().enumerate() {
            unsafe {
                match self.dtype {
                    FLOAT64 => *(self.data as *mut f64).add(i) = value,
                    _ => *(self.data as *mut f32).add(i) = value as f32,
                }
            }
        }
    }
}

/// A row of only -infinity gives zeros.
fn softmax_row(x: &[f64]) -> Vec<f64> {
    let most = x.iter().fold(f64::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a });
    if most == f64::NEG_INFINITY {
        return vec![0.0; x.len()];
    }
    let e: Vec<f64> = x.iter().map(|v| (v - most).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

fn softmax_row_back(y: &[f64], dy: &[f64]) -> Vec<f64> {
    let along: f64 = y.iter().zip(dy).map(|(a, b)| a * b).sum();
    y.iter().zip(dy).map(|(a, b)| a * (b - along)).collect()
}

/// n = (x - mean) / sqrt(variance + eps) of a row, and 1 / sqrt(variance + eps).
fn normal_row(x: &[f64], eps: f64) -> (Vec<f64>, f64) {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let c: Vec<f64> = x.iter().map(|v| v - mean).collect();
    let r = 1.0 / (c.iter().map(|v| v * v).sum::<f64>() / count + eps).sqrt();
    (c.iter().map(|v| v * r).collect(), r)
}

#[no_mangle]
pub extern "C" fn refllm_softmax(x: &Tensor, y: &Tensor) -> c_int {
    if !x.known() {
        return NOT_SUPPORTED;
    }
    y.write(&x.numbers().chunks(x.last(1).max(1)).flat_map(softmax_row).collect::<Vec<f64>>());
    DONE
}

#[no_mangle]
pub extern "C" fn refllm_softmax_back(x: &Tensor, _y: &Tensor, dy: &Tensor, dx: &Tensor) -> c_int {
    if !x.known() {
        return NOT_SUPPORTED;
    }
    let (input, d, n) = (x.numbers(), dy.numbers(), x.last(1).max(1));
    let rows = input.chunks(n).zip(d.chunks(n));
    dx.write(&rows.flat_map(|(x, d)| softmax_row_back(&softmax_row(x), d)).collect::<Vec<f64>>());
    DONE
}

#[no_mangle]
pub extern "C" fn refllm_layer_norm(x: &Tensor, g: &Tensor, b: &Tensor, eps: f64, y: &Tensor) -> c_int {
    if !x.known() {
        return NOT_SUPPORTED;
    }
    let (scale, shift) = (g.numbers(), b.numbers());
    let mut out = Vec::with_capacity(x.size());
    for row in x.numbers().chunks(x.last(1).max(1)) {
        let (n, _) = normal_row(row, eps);
        out.extend((0..row.len()).map(|i| n[i] * scale[i] + shift[i]));
    }
    y.write(&out);
    DONE
}

#[no_mangle]
pub extern "C" fn refllm_layer_norm_back(
    x: &Tensor, g: &Tensor, _b: &Tensor, eps: f64, _y: &Tensor, dy: &Tensor, dx: &Tensor, dg: &Tensor, db: &Tensor,
) -> c_int {
    if !x.known() {
        return NOT_SUPPORTED;
    }
    let (input, scale, d, width) = (x.numbers(), g.numbers(), dy.numbers(), x.last(1));
    let (mut out, mut out_g, mut out_b) = (vec![], vec![0.0; width], vec![0.0; width]);
    for (row, dr) in input.chunks(width.max(1)).zip(d.chunks(width.max(1))) {
        let (n, r) = normal_row(row, eps);
        let dn: Vec<f64> = (0..width).map(|i| dr[i] * scale[i]).collect();
        let mean = dn.iter().sum::<f64>() / width as f64;
        let along = (0..width).map(|i| dn[i] * n[i]).sum::<f64>() / width as f64;
        for i in 0..width {
            out.push(r * (dn[i] - mean - n[i] * along));
            out_g[i] += dr[i] * n[i];
            out_b[i] += dr[i];
        }
    }
    dx.write(&out);
    dg.write(&out_g);
    db.write(&out_b);
    DONE
}

/// Whether query t of batch n may attend key j: the leading axes of the mask may be fewer, or of size 1.
fn may_attend(q: &Tensor, mask: &Tensor, mut n: i64, t: usize, j: usize) -> bool {
    let (shape, strides, axes) = (mask.shape(), mask.strides(), mask.shape().len());
    let mut at = if shape[axes - 1] > 1 { j as i64 * strides[axes - 1] } else { 0 };
    at += if shape[axes - 2] > 1 { t as i64 * strides[axes - 2] } else { 0 };
    for a in (0..q.shape().len() - 2).rev() {
        let own = a as i64 - (q.axes - mask.axes) as i64;
        if own >= 0 && shape[own as usize] > 1 {
            at += n % q.shape()[a] * strides[own as usize];
        }
        n /= q.shape()[a];
    }
    unsafe { *(mask.data as *const u8).offset(at as isize) != 0 }
}

/// y, dq, dk and dv; without dy the gradients are zeros.
fn attend(
    q: &Tensor, k: &Tensor, v: &Tensor, causal: bool, mask: Option<&Tensor>, dy: Option<&Tensor>,
) -> [Vec<f64>; 4] {
    let (t_count, d_count, s_count, e_count) = (q.last(2), q.last(1), k.last(2), v.last(1));
    let batch = q.shape()[..q.shape().len() - 2].iter().product::<i64>() as usize;
    let (qs, ks, vs, d) = (q.numbers(), k.numbers(), v.numbers(), dy.map(Tensor::numbers));
    let scale = 1.0 / (d_count as f64).sqrt();
    let mut y = vec![0.0; batch * t_count * e_count];
    let (mut dq, mut dk, mut dv) = (vec![0.0; qs.len()], vec![0.0; ks.len()], vec![0.0; vs.len()]);
    for n in 0..batch {
        for t in 0..t_count {
            let row = (n * t_count + t) * d_count;
            let key = |j: usize| (n * s_count + j) * d_count;
            let value = |j: usize| (n * s_count + j) * e_count;
            let scores: Vec<f64> = (0..s_count)
                .map(|j| {
                    let before = !causal || j + t_count <= t + s_count;
                    if before && mask.map_or(true, |m| may_attend(q, m, n as i64, t, j)) {
                        (0..d_count).map(|i| qs[row + i] * ks[key(j) + i] * scale).sum()
                    } else {
                        f64::NEG_INFINITY
                    }
                })
                .collect();
            let p = softmax_row(&scores);
            let out = (n * t_count + t) * e_count;
            for j in 0..s_count {
                for e in 0..e_count {
                    y[out + e] += p[j] * vs[value(j) + e];
                }
            }
            let Some(d) = &d else { continue };
            let dp: Vec<f64> =
                (0..s_count).map(|j| (0..e_count).map(|e| d[out + e] * vs[value(j) + e]).sum()).collect();
            let ds = softmax_row_back(&p, &dp);
            for j in 0..s_count {
                for e in 0..e_count {
                    dv[value(j) + e] += p[j] * d[out + e];
                }
                for i in 0..d_count {
                    dq[row + i] += ds[j] * ks[key(j) + i] * scale;
                    dk[key(j) + i] += ds[j] * qs[row + i] * scale;
                }
            }
        }
    }
    [y, dq, dk, dv]
}

#[no_mangle]
pub extern "C" fn refllm_attention(
    q: &Tensor, k: &Tensor, v: &Tensor, causal: i64, allowed: Option<&Tensor>, y: &Tensor,
) -> c_int {
    if !q.known() {
        return NOT_SUPPORTED;
    }
    y.write(&attend(q, k, v, causal != 0, allowed, None)[0]);
    DONE
}

#[no_mangle]
pub extern "C" fn refllm_attention_back(
    q: &Tensor, k: &Tensor, v: &Tensor, causal: i64, allowed: Option<&Tensor>, _y: &Tensor, dy: &Tensor, dq: &Tensor,
    dk: &Tensor, dv: &Tensor,
) -> c_int {
    if !q.known() {
        return NOT_SUPPORTED;
    }
    let [_, gq, gk, gv] = attend(q, k, v, causal != 0, allowed, Some(dy));
    dq.write(&gq);
    dk.write(&gk);
    dv.write(&gv);
    DONE
}
