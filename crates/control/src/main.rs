//! What a cluster may want beside the sidecars. See `outrigger-control --help`.

fn main() -> std::process::ExitCode {
    control::main()
}
