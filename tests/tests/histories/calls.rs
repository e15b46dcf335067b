//! Combines what the clients report about their debounced calls.

use std::{collections::BTreeMap, time::Duration};

use lock_tests::{Call, Outcome, ms, now};

use super::{ledger::number, world::nanos};

/// The longest that a request is on its way: no fault of the network or the server lasts longer.
const HELD_UP: Duration = Duration::from_secs(3);

/// All calls, by their client and their number.
#[derive(Default)]
pub(super) struct Calls(BTreeMap<(u64, u64), Call>);

impl Calls {
    /// Records what a client has reported. Returns false if it is about something else.
    pub(super) fn hear(&mut self, client: u64, words: &[&str]) -> bool {
        match *words {
            ["called", id, call, made, bound] => {
                let call = Call {
                    id: id.to_owned(),
                    client,
                    number: number(call),
                    made: number(made),
                    bound: nanos(ms(number(bound))),
                    outcome: Outcome::Waits,
                };
                self.0.insert((client, call.number), call);
            }
            ["began", _, call, token, at] => {
                // Until there is a further report: its process may be killed.
                let (token, at) = (number(token), number(at));
                let outcome = Outcome::Ran { token, begun: at, valid_until: at };
                self.of(client, call).outcome = outcome;
            }
            ["ended", _, call, until] => match &mut self.of(client, call).outcome {
                Outcome::Ran { valid_until, .. } => *valid_until = number(until),
                other => panic!("a run that has ended before it began: {other:?}"),
            },
            ["superseded", _, call, at] => {
                self.come_to(client, call, Outcome::Superseded(number(at)));
            }
            ["withdrawn", _, call, at] => {
                self.come_to(client, call, Outcome::Withdrawn(number(at)));
            }
            ["errored", _, call, kind, at] => {
                self.come_to(client, call, Outcome::Failed(number(at), kind.to_owned()));
            }
            _ => return false,
        }
        true
    }

    /// A client was killed, and with it all its waiting calls. Requests that it has sent may still
    /// arrive, for as long as the network or the server is held up.
    pub(super) fn ended(&mut self, client: u64) {
        let its = self.0.range_mut((client, 0)..=(client, u64::MAX));
        for (_, call) in its.filter(|(_, call)| call.outcome == Outcome::Waits) {
            call.outcome = Outcome::Failed(now() + nanos(HELD_UP), "killed".to_owned());
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = Call> {
        self.0.into_values()
    }

    /// A run that was lost or abandoned still counts as a run.
    fn come_to(&mut self, client: u64, call: &str, outcome: Outcome) {
        let call = self.of(client, call);
        match call.outcome {
            Outcome::Waits => call.outcome = outcome,
            Outcome::Ran { .. } if !matches!(outcome, Outcome::Superseded(_)) => {}
            _ => panic!("two answers: {outcome:?} after {call:?}"),
        }
    }

    fn of(&mut self, client: u64, call: &str) -> &mut Call {
        self.0.get_mut(&(client, number(call))).expect("it was called before")
    }
}
