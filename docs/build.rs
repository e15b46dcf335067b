//! Completes the code of the pages so that it runs: a comment `<!-- run` after a block of code,
//! which readers of a page do not see, is added to the block.

use std::{env, error::Error, fs, path::Path};

const PAGES: [&str; 8] = [
    "recipes.md",
    "guides/choosing.md",
    "guides/debounce.md",
    "guides/from-rslock.md",
    "guides/from-shedlock-and-redisson.md",
    "guides/from-upstash-lock.md",
    "guides/lost.md",
    "guides/testing.md",
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::var("OUT_DIR")?;
    println!("cargo::rerun-if-changed=build.rs");
    for page in PAGES {
        println!("cargo::rerun-if-changed={page}");
        let text = fs::read_to_string(page)?;
        let complete = text.replace("```\n\n<!-- run\n", "\n").replace("\n-->", "\n```");
        let name = Path::new(page).file_name().ok_or("a page has a name")?;
        fs::write(Path::new(&folder).join(name), complete)?;
    }
    Ok(())
}
