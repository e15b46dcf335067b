//! What the compiler says about the attributes: one mistake, one error, on the user's own token.
//! Each `.stderr` was proofread before it was committed.

use std::{env, fs, process::Command};

#[test]
fn attributes_accept_what_they_should_and_explain_what_they_refuse() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

/// As with `dlock = { package = "lock" }` in Cargo.toml.
#[test]
fn a_crate_of_another_name_is_one_error_that_names_the_argument() {
    let here = env::current_exe().unwrap();
    let deps = here.parent().unwrap();
    let built = fs::read_dir(deps).unwrap().map(|entry| entry.unwrap().path());
    let built = built.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("liblock-") && name.ends_with(".rlib")
    });
    let lock = built.max_by_key(|path| fs::metadata(path).unwrap().modified().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("lib.rs");
    let compiled = |argument: &str| {
        let code = format!(
            "#[dlock::debounced(id = \"a:{{id}}\", wait = \"1s\"{argument})]
             pub async fn run(id: u64) -> u64 {{ id }}
             pub async fn caller() -> Result<Option<u64>, dlock::Error> {{ run(1).await }}"
        );
        fs::write(&source, code).unwrap();
        let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never"]);
        rustc.arg(&source).arg("--out-dir").arg(folder.path()).arg("-L").arg(deps);
        rustc.arg("--extern").arg(format!("dlock={}", lock.display()));
        let output = rustc.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (compiles, errors) = compiled("");
    assert!(!compiles && errors.contains("error: aborting due to 1 previous error"), "{errors}");
    let expected = "error: `lock` is called `dlock` in this crate; add `crate = dlock`\n";
    assert!(errors.starts_with(expected), "{errors}");
    let (compiles, errors) = compiled(", crate = dlock");
    assert!(compiles, "{errors}");
}
