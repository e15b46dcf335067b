//! Mistakes on purpose, which the tests must catch (feature `__mutants`, for tests of this crate).
//!
//! A test that passes says little until it has failed for the right reason. One mistake at a time is
//! switched on by the environment; without the feature there are none, and no cost.

#[cfg(feature = "__mutants")]
use std::sync::LazyLock;

/// Which one is on, if any is.
#[cfg(feature = "__mutants")]
static ON: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("LOCK_MUTANT").ok());

/// Those of the scripts: what is written instead of what.
#[cfg(all(feature = "__mutants", feature = "redis"))]
const SCRIPTS: [(&str, &str, &str); 8] = [
    ("release without owner check", "holders[i] == ARGV[2 * i]", "holders[i]"),
    (
        "renew re-creates",
        "redis.pcall('GET', KEYS[i]) == ARGV[3 * i - 2]",
        "redis.call('SET', KEYS[i], ARGV[3 * i - 2], 'NX', 'PX', ARGV[3 * i - 1]) or redis.pcall('GET', KEYS[i]) == ARGV[3 * i - 2]",
    ),
    ("counter-only token", "return math.max(last + 1, micros), micros", "return last + 1, micros"),
    ("seconds as TTL", "'NX', 'PX', lease)", "'NX', 'EX', math.ceil(lease / 1000))"),
    ("failed extend releases", "  return -1", "  redis.call('DEL', KEYS[1]) return -1"),
    ("debounce claim without lease", "  redis.call('SET', KEYS[2], token, 'PX', ARGV[6])", ""),
    (
        "ticket is not kept",
        "  if kept then\n    ticket = tonumber(kept)\n  elseif ticket == 0 then",
        "  if true then",
    ),
    ("no tombstone", "  if made <= window.ran then", "  if false then"),
];

/// Is this mistake made?
#[cfg(feature = "__mutants")]
pub(crate) fn is(name: &str) -> bool {
    ON.as_deref() == Some(name)
}

/// Is this mistake made? No.
#[cfg(not(feature = "__mutants"))]
#[inline(always)]
pub(crate) const fn is(_: &str) -> bool {
    false
}

/// A script, with the mistake that is to be made in it.
#[cfg(feature = "redis")]
pub(crate) fn script(source: &'static str) -> std::borrow::Cow<'static, str> {
    #[cfg(feature = "__mutants")]
    for (name, from, to) in SCRIPTS {
        if is(name) && source.contains(from) {
            return source.replace(from, to).into();
        }
    }
    source.into()
}
