// SPDX-License-Identifier: GPL-2.0

//! Tests of the transition table, most of them over everything that can be reached.

#![forbid(unsafe_code)]

use super::*;

const CLOSE: Event = Event::AppClose { unread: false };
const PEER_CLOSED: Event = Event::PeerClosed { unsent: false };

fn run(events: &[Event]) -> (Life, Actions) {
    let mut life = Life::new();
    let mut last = Actions::NONE;
    for &event in events {
        last = life.handle(event);
    }
    (life, last)
}

fn active(events: &[Event]) -> (State, Actions) {
    let mut life = Life::new();
    life.handle(Event::Established);
    let mut last = Actions::NONE;
    for &event in events {
        last = life.handle(event);
    }
    (life.state(), last)
}

#[test]
fn active_close() {
    let (state, actions) = active(&[CLOSE]);
    assert_eq!(state, State::Active);
    assert!(actions.wait_drained && actions.send.is_none());
    let (state, actions) = active(&[CLOSE, Event::Drained]);
    assert_eq!(state, State::PeerCloseWait1);
    assert_eq!(actions.send, Some(Farewell::Closed));
    assert!(actions.arm_timer);
    let (state, actions) = active(&[CLOSE, Event::Drained, PEER_CLOSED]);
    assert_eq!(state, State::Closed);
    assert!(actions.release_peer_ref && actions.free);
}

#[test]
fn passive_close() {
    let (state, actions) = active(&[PEER_CLOSED]);
    assert_eq!(state, State::AppCloseWait1);
    assert!(actions.eof && actions.release_peer_ref && !actions.free);
    let (state, actions) = active(&[PEER_CLOSED, CLOSE]);
    assert_eq!(state, State::Closed);
    assert_eq!(actions.send, Some(Farewell::Closed));
    assert!(actions.free && !actions.release_peer_ref);
}

#[test]
fn half_close_both_ways() {
    let shut = Event::AppShutdownWrite;
    let (state, actions) = active(&[shut, Event::Drained]);
    assert_eq!(state, State::PeerCloseWait1);
    assert_eq!(actions.send, Some(Farewell::DoneWriting));
    assert!(!actions.arm_timer);
    let path = [shut, Event::Drained, Event::PeerDoneWriting];
    assert_eq!(active(&path).0, State::PeerCloseWait2);
    let path = [shut, Event::Drained, PEER_CLOSED];
    assert_eq!(active(&path).0, State::AppFinCloseWait);
    let path = [Event::PeerDoneWriting, shut, Event::Drained];
    assert_eq!(active(&path).0, State::AppCloseWait2);
    let path = [Event::PeerDoneWriting, CLOSE, Event::Drained];
    assert_eq!(active(&path).0, State::PeerFinCloseWait);
}

#[test]
fn a_close_overtakes_a_shutdown_that_drains() {
    let (_, actions) = active(&[Event::AppShutdownWrite, CLOSE, Event::Drained]);
    assert_eq!(actions.send, Some(Farewell::Closed));
}

#[test]
fn data_that_the_peer_will_not_take_resets() {
    let lost = Event::PeerClosed { unsent: true };
    let (state, actions) = active(&[lost]);
    assert_eq!(state, State::ProcessAbort);
    assert_eq!(actions.send, Some(Farewell::Abort));
    assert!(actions.reset && actions.eof && actions.release_peer_ref);
    let (state, actions) = active(&[CLOSE, lost]);
    assert_eq!(state, State::Closed);
    assert!(actions.free && actions.release_peer_ref);
}

#[test]
fn unread_data_aborts() {
    let (state, actions) = active(&[Event::AppClose { unread: true }]);
    assert_eq!(state, State::PeerAbortWait);
    assert_eq!(actions.send, Some(Farewell::Abort));
    assert!(actions.arm_timer && actions.discard_unsent);
}

#[test]
fn unread_data_does_not_abort_when_both_are_done_writing() {
    let unread = Event::AppClose { unread: true };
    let (done, drained) = (Event::AppShutdownWrite, Event::Drained);
    for order in [
        [done, drained, Event::PeerDoneWriting, unread],
        [Event::PeerDoneWriting, done, drained, unread],
    ] {
        let (_, actions) = active(&order);
        assert_ne!(actions.send, Some(Farewell::Abort), "{order:?}");
        assert!(!actions.reset, "{order:?}");
    }
}

/// Everything that can be reached, with how often the reference was released and the
/// connection freed on the way.
fn explore(mut visit: impl FnMut(&Life, Event, &Life, &Actions, (u8, u8))) {
    let mut seen = std::collections::HashSet::new();
    let mut todo = std::vec![(Life::new(), 0u8, 0u8)];
    while let Some((life, releases, frees)) = todo.pop() {
        if !seen.insert((life, releases, frees)) {
            continue;
        }
        for event in Event::ALL {
            let mut next = life;
            let actions = next.handle(event);
            let counts = (
                releases + u8::from(actions.release_peer_ref),
                frees + u8::from(actions.free),
            );
            visit(&life, event, &next, &actions, counts);
            todo.push((next, counts.0, counts.1));
        }
    }
}

#[test]
fn every_path_obeys_the_rules() {
    explore(|from, event, to, actions, (releases, frees)| {
        let what = std::format!("{from:?} {event:?} -> {to:?} {actions:?}");
        // The reference is released once, and the books agree.
        assert_eq!(releases, u8::from(!to.peer_ref), "{what}");
        // Freed once: at the end, when nobody is left.
        let over = to.state == State::Closed && to.app_closed;
        assert_eq!(frees, u8::from(over), "{what}");
        assert!(to.state != State::Closed || !to.peer_ref, "{what}");
        // Farewells only get stronger, and none is said to nobody's gain.
        assert!(to.said >= from.said, "{what}");
        assert!(actions.send.is_none() || actions.send > from.said, "{what}");
        // Nothing is draining for a peer that is gone and an application that is gone.
        if to.app_closed && !to.peer_ref {
            assert_eq!(to.state, State::Closed, "{what}");
        }
        // An orphan is never without a timer, once something happens.
        if to.is_orphan() && to != from {
            assert!(actions.arm_timer, "{what}");
        }
        // The past does not come back.
        if from.state == State::Closed {
            assert_eq!(to.state, State::Closed, "{what}");
        }
        assert!(!from.app_closed || to.app_closed, "{what}");
    });
}

#[test]
fn every_connection_can_end_without_the_peer() {
    explore(|_, _, life, _, _| {
        let mut life = *life;
        for event in [CLOSE, Event::Drained, Event::Timeout, Event::Timeout] {
            life.handle(event);
        }
        assert_eq!(life.state, State::Closed);
        assert!(!life.peer_ref && life.app_closed);
    });
}

#[test]
fn every_state_is_reached_and_has_its_number() {
    let mut reached = std::collections::BTreeSet::new();
    explore(|_, _, life, _, _| {
        reached.insert(life.state.abi());
    });
    let all = State::ALL.map(State::abi);
    assert!(reached
        .iter()
        .eq([1, 2, 7, 10, 20, 21, 22, 23, 24, 25, 26, 27].iter()));
    assert!(all.iter().all(|n| reached.contains(n)));
}

#[test]
fn two_peers_that_close_at_once_both_end() {
    let (mut a, mut b) = (run(&[Event::Established]).0, run(&[Event::Established]).0);
    for life in [&mut a, &mut b] {
        life.handle(CLOSE);
        assert_eq!(life.handle(Event::Drained).send, Some(Farewell::Closed));
    }
    for life in [&mut a, &mut b] {
        assert!(life.handle(PEER_CLOSED).free);
    }
}

/// Not a check: `cargo test matrix -- --nocapture` prints the table.
#[test]
fn matrix() {
    let mut rows = std::collections::BTreeSet::new();
    explore(|from, event, to, actions, _| {
        if from != to {
            rows.insert(std::format!(
                "{:?} {}{}{}| {event:?} | {:?} {:?}{}{}",
                from.state,
                if from.app_closed { "orphan " } else { "" },
                if from.peer_ref { "" } else { "peer-gone " },
                if from.is_draining() { "draining " } else { "" },
                to.state,
                actions.send,
                if actions.release_peer_ref {
                    " release"
                } else {
                    ""
                },
                if actions.free { " free" } else { "" },
            ));
        }
    });
    for row in rows {
        std::println!("{row}");
    }
}
