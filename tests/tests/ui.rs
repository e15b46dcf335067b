//! What the compiler says about the attributes: one mistake, one error, on the user's own token.
//! Each `.stderr` was read like prose before it was committed.

#[test]
fn attributes_accept_what_they_should_and_explain_what_they_refuse() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
