//! Every public item is shown by an example: a type or a function by any in the documentation, a method
//! by one of its type, or by one that names both.

use std::{collections::BTreeSet, fs, path::PathBuf};

use syn::{
    Attribute, Expr, ExprLit, ImplItem, Item, ItemUse, Lit, Meta, TraitItem, Type, UseTree,
    Visibility,
};

use crate::files::{files, root};

/// A public item with the examples in its documentation.
#[derive(Debug)]
struct Documented {
    /// The type or the trait that a method belongs to.
    owner: Option<String>,
    name: String,
    is_function: bool,
    /// The code of its examples.
    examples: Vec<String>,
}

/// Files with items that are `pub` but not part of the API: the attributes expand to them, or the
/// fuzz targets call them.
const HIDDEN: [&str; 5] =
    ["macro_support", "lock_set.rs", "reentrancy.rs", "guarded.rs", "fuzzing.rs"];

fn parsed(folder: &str) -> Vec<syn::File> {
    let parse = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("a file can be read");
        syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    files(&root().join(folder), ".rs", &HIDDEN).into_iter().map(parse).collect()
}

/// The blocks of Rust in the documentation that these attributes are.
fn examples(attributes: &[Attribute]) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for attribute in attributes {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { continue };
        if !pair.path.is_ident("doc") {
            continue;
        }
        for line in text.value().lines() {
            match (line.trim().strip_prefix("```"), open.take()) {
                (Some(kind), None) => {
                    let is_rust = !["text", "sh", "toml", "lua", "ignore", "sql"].contains(&kind);
                    open = Some((is_rust, String::new()));
                }
                (Some(_), Some((is_rust, block))) => blocks.extend(is_rust.then_some(block)),
                (None, Some((is_rust, block))) => open = Some((is_rust, block + line + "\n")),
                (None, None) => {}
            }
        }
    }
    blocks
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether this is in the documentation: not hidden, and there without the flags of tests.
fn is_shown(attributes: &[Attribute]) -> bool {
    !attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("doc") => list.tokens.to_string().contains("hidden"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition.contains("lock_mutants") || condition.split(' ').any(|word| word == "test")
        }
        _ => false,
    })
}

/// All that is public in these items, and all examples.
fn collect(items: &[Item], found: &mut Vec<Documented>) {
    let mut add = |owner: Option<&str>, name: &str, attributes: &[Attribute]| {
        if is_shown(attributes) {
            let (owner, name) = (owner.map(str::to_owned), name.to_owned());
            let is_function = owner.is_none() && name.starts_with(char::is_lowercase);
            found.push(Documented { owner, name, is_function, examples: examples(attributes) });
        }
    };
    let mut inner = Vec::new();
    for item in items {
        match item {
            Item::Struct(item) if is_public(&item.vis) => {
                add(None, &item.ident.to_string(), &item.attrs);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                add(None, &item.ident.to_string(), &item.attrs);
            }
            Item::Type(item) if is_public(&item.vis) => {
                add(None, &item.ident.to_string(), &item.attrs);
            }
            Item::Const(item) if is_public(&item.vis) => {
                add(None, &item.ident.to_string(), &item.attrs);
            }
            Item::Fn(item) if is_public(&item.vis) => {
                add(None, &item.sig.ident.to_string(), &item.attrs);
            }
            Item::Trait(item) if is_public(&item.vis) => {
                let owner = item.ident.to_string();
                add(None, &owner, &item.attrs);
                for method in &item.items {
                    if let TraitItem::Fn(method) = method {
                        add(Some(&owner), &method.sig.ident.to_string(), &method.attrs);
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() => {
                let Type::Path(owner) = &*item.self_ty else { continue };
                let Some(owner) = owner.path.segments.last() else { continue };
                for method in &item.items {
                    if let ImplItem::Fn(method) = method
                        && is_public(&method.vis)
                    {
                        let name = method.sig.ident.to_string();
                        add(Some(&owner.ident.to_string()), &name, &method.attrs);
                    }
                }
            }
            Item::Mod(item) if is_public(&item.vis) && is_shown(&item.attrs) => {
                inner.extend(item.content.iter().flat_map(|(_, items)| items));
            }
            _ => {}
        }
    }
    for item in inner {
        collect(std::slice::from_ref(item), found);
    }
}

/// The names at the end of what is re-exported from `lock_core`.
fn re_exported(items: &[Item], names: &mut BTreeSet<String>) {
    fn leaves(tree: &UseTree, names: &mut BTreeSet<String>) {
        match tree {
            UseTree::Path(path) => leaves(&path.tree, names),
            UseTree::Name(name) => {
                names.insert(name.ident.to_string());
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
            UseTree::Rename(_) | UseTree::Glob(_) => {
                panic!("a re-export that this test cannot read")
            }
        }
    }
    for item in items {
        if let Item::Use(ItemUse { vis, tree: UseTree::Path(path), .. }) = item
            && is_public(vis)
            && path.ident == "lock_core"
        {
            leaves(&path.tree, names);
        }
    }
}

/// Whether code has this word.
fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part)
    })
}

/// Whether code calls, or implements, a method of this name.
fn has_method(code: &str, name: &str) -> bool {
    [format!(".{name}("), format!("::{name}("), format!("fn {name}("), format!("fn {name}<")]
        .iter()
        .any(|form| code.contains(form.as_str()))
}

#[test]
fn every_public_item_is_shown_by_an_example() {
    let files = parsed("lock/src");
    let mut items = Vec::new();
    let mut names = BTreeSet::new();
    // What modules say of themselves.
    let mut texts = Vec::new();
    for file in &files {
        collect(&file.items, &mut items);
        re_exported(&file.items, &mut names);
        texts.extend(examples(&file.attrs));
    }
    assert!(names.contains("AcquireRequest"), "{names:?}");
    let mut core = Vec::new();
    for file in parsed("lock-core/src") {
        collect(&file.items, &mut core);
    }
    items.extend(
        core.into_iter().filter(|item| names.contains(item.owner.as_ref().unwrap_or(&item.name))),
    );
    texts.extend(items.iter().flat_map(|item| item.examples.iter().cloned()));

    // A method is public if its type is.
    let types: BTreeSet<_> =
        items.iter().filter(|item| item.owner.is_none()).map(|item| item.name.clone()).collect();
    items.retain(|item| item.owner.as_ref().is_none_or(|owner| types.contains(owner)));
    assert!(items.len() > 250, "{} public items were found", items.len());

    let is_shown = |item: &Documented| {
        if !item.examples.is_empty() {
            return true;
        }
        match &item.owner {
            // A variable may have the name of a function.
            None if item.is_function => {
                texts.iter().any(|code| code.contains(&format!("::{}(", item.name)))
            }
            None => texts.iter().any(|code| has_word(code, &item.name)),
            Some(owner) => {
                let own = items
                    .iter()
                    .filter(|other| other.owner.as_ref().unwrap_or(&other.name) == owner)
                    .flat_map(|other| &other.examples);
                own.into_iter().any(|code| has_method(code, &item.name))
                    || texts.iter().any(|code| code.contains(&format!("{owner}::{}(", item.name)))
            }
        }
    };
    let missing: Vec<_> = items
        .iter()
        .filter(|item| !is_shown(item))
        .map(|item| match &item.owner {
            Some(owner) => format!("{owner}::{}", item.name),
            None => item.name.clone(),
        })
        .collect();
    assert!(missing.is_empty(), "{} without an example: {missing:#?}", missing.len());
}
