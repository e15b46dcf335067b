//! Checks the links of all pages: the file, the heading and the test that a link names must exist.

use std::{fs, path::Path};

use crate::files::{files, root};

/// A link of a page: its text and its target.
struct Link {
    text: String,
    target: String,
}

/// The links of a page, outside of code blocks.
fn links(page: &str) -> Vec<Link> {
    let mut links = Vec::new();
    let prose = page.split("\n```").step_by(2);
    for prose in prose {
        for (end, _) in prose.match_indices("](") {
            let rest = &prose[end + 2..];
            let Some(target) = rest.split(')').next() else { continue };
            let text = prose[..end].rsplit('[').next().unwrap_or_default();
            links.push(Link { text: text.to_owned(), target: target.to_owned() });
        }
    }
    links
}

/// The anchors that GitHub gives to the headings of a page.
fn headings(page: &str) -> Vec<String> {
    let titles = page.lines().filter(|line| line.starts_with('#'));
    let titles = titles.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    titles
        .map(|title| {
            let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// Returns what is wrong with a link of this page, if anything.
fn fault(page: &Path, own: &str, link: &Link) -> Option<String> {
    let Link { text, target } = link;
    if target.contains("://") {
        return None;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = page.parent().expect("a page is in a folder").join(file);
    if !file.is_empty() && !path.exists() {
        return Some("there is no such file".to_owned());
    }
    let text_of = || fs::read_to_string(&path).expect("a file can be read");
    if !heading.is_empty() {
        let other = if file.is_empty() { own.to_owned() } else { text_of() };
        if !headings(&other).iter().any(|known| known == heading) {
            return Some("there is no such heading".to_owned());
        }
    }
    // A claim is linked to its test, as [`module::test`](..).
    if let Some(test) = text.trim_matches('`').split("::").nth(1)
        && file.ends_with(".rs")
        && !text_of().contains(&format!("fn {test}("))
    {
        return Some(format!("there is no test {test} in it"));
    }
    None
}

#[test]
fn each_link_leads_somewhere() {
    let pages = files(root(), ".md", &[]);
    assert!(pages.len() > 15, "{pages:?}");
    let mut faults = Vec::new();
    let mut seen = 0;
    for path in pages {
        let page = fs::read_to_string(&path).expect("a page can be read");
        for link in links(&page) {
            seen += 1;
            if let Some(fault) = fault(&path, &page, &link) {
                let name = path.strip_prefix(root()).expect("a page is in the repository");
                faults.push(format!(
                    "{}: [{}]({}): {fault}",
                    name.display(),
                    link.text,
                    link.target
                ));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let readme = root().join("README.md");
    let wrong = "[a](nothing.md) [b](docs/production.md#nothing) [c](#nothing)
        [`faults::nothing`](tests/tests/faults.rs)
```text
[not a link](nothing.md)
```
        [d](https://example.org/nothing) [e](docs/production.md#the-server)";
    let faults = links(wrong).into_iter().map(|link| (fault(&readme, wrong, &link), link.text));
    let found: Vec<_> = faults.filter_map(|(fault, text)| fault.map(|_| text)).collect();
    assert_eq!(found, ["a", "b", "c", "`faults::nothing`"]);
}
