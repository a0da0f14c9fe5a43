fn main() {
    gst_plugin_version_helper::info();
    // Otherwise a change of any file of the package would count, such as one in a build directory of meson.
    println!("cargo::rerun-if-changed=build.rs");
    // The version contains the commit. Cargo takes a file that does not exist for changed.
    if std::path::Path::new(".git/logs/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    // The soname, which programs record when they link with the library. It changes with the ABI and not
    // with each version. cargo-c makes the same one.
    println!(
        "cargo::rustc-cdylib-link-arg=-Wl,-soname,libgstphysmem.so.{}",
        abi_version()
    );
}

fn abi_version() -> String {
    let part = |name: &str| std::env::var(format!("CARGO_PKG_VERSION_{name}")).unwrap();
    match part("MAJOR").as_str() {
        "0" => format!("0.{}", part("MINOR")),
        major => major.to_owned(),
    }
}
