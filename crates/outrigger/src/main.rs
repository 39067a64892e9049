//! The sidecar. See `outrigger --help`.

fn main() -> std::process::ExitCode {
    outrigger::main()
}
