//! Leases: revocation against whoever uses keys.

use std::sync::Arc;
use std::sync::Mutex as Plain;

use shuttle::thread;

use crate::explore;
use crate::fs::keys::KeyUnavailable;
use crate::fs::lease::{Leases, Revocable};
use crate::ids::KeyId;

const KEY: KeyId = KeyId([7; 16]);
const OTHER: KeyId = KeyId([8; 16]);

/// Keys in memory.
struct Held(Plain<bool>);

impl Held {
    fn is_there(&self) -> bool {
        *self.0.lock().expect("nobody panics")
    }
}

impl Revocable for Held {
    fn wipe_keys(&self) {
        *self.0.lock().expect("nobody panics") = false;
    }
}

#[test]
fn whoever_is_inside_a_lease_keeps_the_keys_until_it_leaves() {
    explore(2_000, || {
        let leases = Arc::new(Leases::default());
        let held = Arc::new(Held(Plain::new(true)));
        let users: Vec<_> = (0..2)
            .map(|_| {
                let (leases, held) = (Arc::clone(&leases), Arc::clone(&held));
                thread::spawn(move || {
                    let lease = leases.of(KEY);
                    let Ok(inside) = lease.enter() else {
                        return;
                    };
                    let weak = Arc::downgrade(&held);
                    lease.hold(weak);
                    thread::yield_now();
                    assert!(held.is_there(), "wiped under its user");
                    // Again, as an operation on two objects does.
                    assert!(lease.enter().is_ok() || leases.any_revoked());
                    assert!(held.is_there());
                    drop(inside);
                })
            })
            .collect();
        leases.close(KEY, KeyUnavailable::Disabled);
        assert!(leases.any_revoked());
        assert!(
            leases.of(KEY).enter().is_err(),
            "nobody enters what is closed"
        );
        leases.wipe(KEY);
        for user in users {
            user.join().expect("no panic");
        }
        assert_eq!(leases.state(KEY), Err(KeyUnavailable::Disabled));
    });
}

#[test]
fn whoever_is_inside_a_lease_may_ask_for_its_state_while_a_revocation_waits() {
    explore(2_000, || {
        let leases = Arc::new(Leases::default());
        let user = {
            let leases = Arc::clone(&leases);
            thread::spawn(move || {
                let lease = leases.of(KEY);
                let Ok(_inside) = lease.enter() else {
                    return;
                };
                assert_eq!(leases.state(KEY), Ok(()));
                assert!(leases.list().contains(&(KEY, Ok(()))));
                let _ = leases.data_keys(KEY);
            })
        };
        leases.close(KEY, KeyUnavailable::PendingDeletion);
        user.join().expect("no panic");
        assert_eq!(leases.list(), [(KEY, Err(KeyUnavailable::PendingDeletion))]);
    });
}

#[test]
fn operations_under_two_keys_and_two_revocations_do_not_wait_for_each_other() {
    explore(2_000, || {
        let leases = Arc::new(Leases::default());
        let uses = [(KEY, OTHER), (OTHER, KEY)].map(|(first, second)| {
            let leases = Arc::clone(&leases);
            thread::spawn(move || {
                let (first, second) = (leases.of(first), leases.of(second));
                let Ok(_first) = first.enter() else {
                    return;
                };
                let _second = second.enter();
            })
        });
        let revocations = [KEY, OTHER].map(|key| {
            let leases = Arc::clone(&leases);
            thread::spawn(move || {
                leases.close(key, KeyUnavailable::Disabled);
                leases.wipe(key);
            })
        });
        for thread in uses.into_iter().chain(revocations) {
            thread.join().expect("no panic");
        }
        for key in [KEY, OTHER] {
            leases.restore(key);
            assert!(leases.of(key).enter().is_ok());
        }
        assert!(!leases.any_revoked());
    });
}

#[test]
fn a_lease_that_is_closed_and_restored_at_the_same_time_is_one_or_the_other() {
    explore(2_000, || {
        let leases = Arc::new(Leases::default());
        leases.of(KEY);
        let changes = [true, false].map(|closes| {
            let leases = Arc::clone(&leases);
            thread::spawn(move || {
                if closes {
                    leases.close(KEY, KeyUnavailable::Disabled);
                } else {
                    leases.restore(KEY);
                }
            })
        });
        for change in changes {
            change.join().expect("no panic");
        }
        let state = leases.state(KEY);
        assert_eq!(
            leases.of(KEY).enter().map(drop),
            state,
            "who asks and who enters hear the same"
        );
        assert_eq!(leases.any_revoked(), state.is_err());
    });
}
