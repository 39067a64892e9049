//! The login service. See `login-service --help`.

fn main() -> std::process::ExitCode {
    login_service::main()
}
