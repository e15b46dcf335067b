//! What the attributes generate, as text.

use super::*;

fn expanded(attribute: Attribute, args: &str, item: &str) -> String {
    let parse = |text: &str| text.parse::<TokenStream>().expect("tokens");
    // As text, hygiene, locations and spacing are lost.
    expand(attribute, parse(args), &parse(item)).to_string().replace(' ', "")
}

#[test]
fn the_user_s_function_is_kept_around_one_call_of_the_runtime() {
    let code = expanded(
        Attribute::Locked,
        r#"id = "a:{order.id}", lease = "1s", guard = g, reentrant"#,
        "#[doc = \"D\"] pub async fn f<T>(order: &T) -> Result<(), E> { x; }",
    );
    let expected = [
        "#[doc=\"D\"]pubasyncfnf<T>(order:&T)->Result<(),E>{let__lock_locks=",
        "__lock_id.literal(\"a:\");__lock_id.value(&order.id);__lock_id.finish()};",
        "let__lock_held=::lock::__private::Slot::new();",
        "let__lock_body=::core::pin::pin!(asyncmove{",
        "let_=&order;letg=__lock_held.guard();{x;}});",
        "::lock::__private::run(__lock_held,__lock_locks,__lock_id,\
         |__lock_it|__lock_it.lease(::lock::__private::milliseconds(1000u64)),\
         (::lock::__private::OnLost::Stop,::lock::__private::Reentry::Allowed),__lock_body\
         ).await};match::lock::__private::finish(__lock_held,__lock_result).await{",
        "<Result<(),E>as::lock::__private::LockedOutput>::from_lock_error(__lock_error),}}",
    ];
    let mut rest = code.as_str();
    for part in expected {
        let found = rest.find(part).unwrap_or_else(|| panic!("no {part} in {rest}"));
        rest = &rest[found + part.len()..];
    }
    assert_eq!(rest, "", "nothing follows");
}

/// What an editor sees while the user types: our attributes may not add errors to it.
#[test]
fn bodies_that_are_half_typed_expand() {
    for body in [
        "{ order. }",
        "{ let x = ; }",
        "{ if order.is() }",
        "{ match order { Some() = } }",
        "{ fn }",
    ] {
        let item = format!("async fn f(order: u32) -> R {body}");
        for (attribute, args) in [(Attribute::Locked, "id = \"a\""), (Attribute::Debounced, "")] {
            for under in ["", "#[locked(id = \"b\")] "] {
                let code = expanded(attribute, args, &format!("{under}{item}"));
                assert!(!code.contains("compile_error"), "{item}: {code}");
                assert!(code.contains("__private"), "{item}: {code}");
            }
        }
    }
}

#[test]
fn mistakes_leave_the_item_without_the_other_attributes() {
    let item = "#[locked(id = \"\")] #[inline] async fn f() {}";
    for attribute in [Attribute::Locked, Attribute::Debounced] {
        let code = expanded(attribute, "id = \"{}\"", item);
        assert_eq!(code.matches("compile_error").count(), 2, "{code}");
        // Callers see the return type that the function will have, not the declared one.
        let rest = match attribute {
            Attribute::Locked => "asyncfnf(){}",
            Attribute::Debounced => {
                "asyncfnf()->::core::result::Result<::core::option::Option<()>,::lock::Error>{"
            }
        };
        let rest = format!("#[allow(unused_variables)]#[inline]{rest}");
        assert!(code.contains(&rest), "{code}");
    }
}

/// The lint levels of an unused argument go with its name; its other attributes stay.
#[test]
fn attributes_of_other_macros_stay_with_their_argument() {
    let item = "async fn f(#[other] #[allow(unused)] #[cfg(all())] a: u32, #[expect(unused)] (b, c): \
                (u32, u32)) -> R { b }";
    let code = expanded(Attribute::Locked, "id = \"a\"", item);
    for part in [
        "(#[other]#[cfg(all())]__lock_0_a:u32,#[allow(unused)](b,__lock_1_c):(u32,u32))",
        "#[cfg(all())]#[allow(unused)]leta=__lock_0_a;#[expect(unused)]letc=__lock_1_c;",
    ] {
        assert!(code.contains(part), "no {part} in {code}");
    }
}
