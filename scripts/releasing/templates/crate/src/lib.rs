//! The golden files of language models: inputs, exact answers, gradients and tolerances. `README` says what a case is.
#![no_std]
#![forbid(unsafe_code)]

/// The version of the specification, which the files state too.
pub const SPEC_VERSION: &str = "$spec_version";
/// The format of the files.
pub const FORMAT: u32 = $format;
/// Every file with its size, SHA-256 and number of cases, as JSON.
pub const MANIFEST: &str = include_str!("../golden/MANIFEST.json");
/// Which known mistakes each case catches, with links, as JSON.
pub const NOTES: &str = include_str!("../golden/notes.json");
/// What a case is, what each operation computes and how near is near enough.
pub const README: &str = include_str!("../golden/README.md");

/// A file of cases (JSON), or of the tensors beside one (safetensors, no cases of its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative to the golden folder: `L1/softmax.json`.
    pub path: &'static str,
    /// From 0, reading and writing, upwards.
    pub level: u32,
    /// How many cases are in it.
    pub cases: u32,
    /// Its contents.
    pub bytes: &'static [u8],
}

/// Every file of the manifest, sorted by path.
#[rustfmt::skip]
pub static FILES: &[File] = &[
$table
];

/// The contents of the file with this path.
pub fn get(path: &str) -> Option<&'static [u8]> {
    FILES.binary_search_by(|file| file.path.cmp(path)).ok().map(|at| FILES[at].bytes)
}
