//! The shop service. See `shop-service --help`.

fn main() -> std::process::ExitCode {
    shop_service::main()
}
