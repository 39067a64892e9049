//! Writes a synthetic city database for load tests: `cargo run -p geo --example make-mmdb -- --size 60MB out.mmdb`.

use std::process::ExitCode;

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../tests/support/mmdb.rs"]
mod mmdb;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (size, path) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => ("60MB", *path),
        ["--size", size, path] => (*size, *path),
        _ => ("", ""),
    };
    let Some(bytes) = parse_size(size) else {
        eprintln!("usage: make-mmdb [--size 60MB] FILE");
        return ExitCode::FAILURE;
    };
    let file = mmdb::cities(bytes).finish();
    // In one step, so that a running sidecar may be watching the path.
    let next = format!("{path}.next");
    if let Err(error) = std::fs::write(&next, &file).and_then(|()| std::fs::rename(&next, path)) {
        eprintln!("{path}: {error}");
        return ExitCode::FAILURE;
    }
    println!("{path}: {} bytes", file.len());
    ExitCode::SUCCESS
}

/// Bytes from `60MB`, `512KB` or `4096`.
fn parse_size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "MB" => 1_000_000,
        "KB" => 1_000,
        "" => 1,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}
