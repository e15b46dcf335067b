//! Tests for the pages of the documentation: their code is compiled and run, and the targets of
//! their links exist. `build.rs` says how a page hides the part that only makes its code run.

#[cfg(test)]
mod examples;
#[cfg(test)]
mod files;
#[cfg(test)]
mod links;

/// The pages with code that a reader may copy.
#[cfg(doctest)]
mod pages {
    macro_rules! pages {
        ($($name:ident $file:literal)*) => {$(
            #[doc = include_str!(concat!(env!("OUT_DIR"), "/", $file))]
            struct $name;
        )*};
    }

    pages! {
        Recipes "recipes.md"
        Choosing "choosing.md"
        Debounce "debounce.md"
        FromRslock "from-rslock.md"
        FromShedLockAndRedisson "from-shedlock-and-redisson.md"
        FromUpstashLock "from-upstash-lock.md"
        Lost "lost.md"
        Testing "testing.md"
    }
}
