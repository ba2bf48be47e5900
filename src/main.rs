//! The binary: everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    cmkfs::cli::run()
}
