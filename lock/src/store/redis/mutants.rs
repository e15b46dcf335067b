//! Deliberate mistakes in the scripts: each is a text, and what replaces it.

use std::borrow::Cow;

use lock_core::mutant::Mutant::{self, *};

const SCRIPTS: [(Mutant, &str, &str); 8] = [
    (ScriptReleaseWithoutOwnerCheck, "holders[i] == ARGV[2 * i]", "holders[i]"),
    (
        ScriptRenewRecreates,
        "redis.pcall('GET', KEYS[i]) == ARGV[3 * i - 2]",
        "redis.call('SET', KEYS[i], ARGV[3 * i - 2], 'NX', 'PX', ARGV[3 * i - 1]) or redis.pcall('GET', KEYS[i]) == ARGV[3 * i - 2]",
    ),
    (
        ScriptCounterOnlyToken,
        "return math.max(last + 1, micros), micros",
        "return last + 1, micros",
    ),
    (ScriptSecondsAsTtl, "'NX', 'PX', lease)", "'NX', 'EX', math.ceil(lease / 1000))"),
    (ScriptFailedExtendReleases, "  return -1", "  redis.call('DEL', KEYS[1]) return -1"),
    (ScriptDebounceClaimWithoutLease, "  redis.call('SET', KEYS[2], token, 'PX', ARGV[6])", ""),
    (
        ScriptTicketIsNotKept,
        "  if kept then\n    ticket = tonumber(kept)\n  elseif ticket == 0 then",
        "  if true then",
    ),
    (ScriptNoTombstone, "  if made <= window.ran then", "  if false then"),
];

/// A script, with the mistake that is switched on.
pub(super) fn written(source: &'static str) -> Cow<'static, str> {
    for (mutant, from, to) in SCRIPTS {
        if mutant.is_on() && source.contains(from) {
            return source.replace(from, to).into();
        }
    }
    source.into()
}
