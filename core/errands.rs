// SPDX-License-Identifier: GPL-2.0

//! In which order the peer is told about RMBs (RFC 7609, section 3.5.5.2): there is one request at a time, and one that
//! the peer refuses for now keeps nobody waiting.
//!
//! The list is the owner's. What is asked stands first in it.

#![forbid(unsafe_code)]

use super::time::Millis;

/// How often a request is made that the peer does not answer.
const TRIES: u8 = 3;

/// How often a request is made that the peer cannot follow yet: it takes its time to add a link.
const PATIENCE: u8 = 40;

/// How long to wait before asking again, in milliseconds.
const PAUSE: u32 = 500;

/// What is to be said about an RMB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// It is new.
    Confirm,
    /// It is gone for the peer.
    Delete,
}

/// Something to be said about an RMB.
#[derive(Debug)]
pub struct Errand<T> {
    /// What.
    pub subject: Subject,
    /// About which one.
    pub rmb: T,
    tries: u8,
    not_before: Millis,
}

/// How the peer has answered a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It has done it.
    Done,
    /// It has not said anything.
    Missing,
    /// It has not done it. `retry`: it may do so later.
    Failed {
        /// Whether asking again is of use.
        retry: bool,
    },
}

/// What an answer leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is asked again later.
    Again,
    /// The peer never answers. It stays first.
    Unanswered,
    /// It is over, and still first: to be removed.
    Over,
    /// The same, and nothing comes of the answer: what is to be said later about the same RMB has the last word.
    Replaced,
}

impl<T> Errand<T> {
    /// One that was not asked yet.
    pub const fn new(subject: Subject, rmb: T) -> Self {
        Self {
            subject,
            rmb,
            tries: 0,
            not_before: Millis(0),
        }
    }

    /// It is being asked.
    pub fn asked(&mut self) {
        self.tries = self.tries.saturating_add(1);
    }
}

/// Puts first what is to be asked next, if there is anything: the first one that is `here` to be asked and does not wait for
/// another try.
pub fn next<T>(
    errands: &mut [Errand<T>],
    here: impl Fn(&Errand<T>) -> bool,
    now: Millis,
) -> Option<&mut Errand<T>> {
    let due = |errand: &Errand<T>| errand.not_before.reached(now) && here(errand);
    let index = errands.iter().position(due)?;
    errands.get_mut(..=index)?.rotate_right(1);
    errands.first_mut()
}

/// The first one was answered, or not in time. `same`: whether two are about one RMB.
pub fn settle<T>(
    errands: &mut [Errand<T>],
    answer: Answer,
    same: impl Fn(&T, &T) -> bool,
    now: Millis,
) -> Option<Verdict> {
    let (first, others) = errands.split_first_mut()?;
    first.not_before = now.after(PAUSE);
    // Either the RMB is gone for the peer by now, or there is a link more than when it was asked.
    let replaced = first.subject == Subject::Confirm
        && others.iter().any(|other| same(&first.rmb, &other.rmb));
    Some(match answer {
        Answer::Done | Answer::Failed { .. } if replaced => Verdict::Replaced,
        Answer::Failed { retry: true } if first.tries < PATIENCE => {
            errands.rotate_left(1);
            Verdict::Again
        }
        Answer::Missing if first.tries < TRIES => Verdict::Again,
        Answer::Missing => {
            // The link is given up; perhaps there is another one to ask on.
            first.tries = 0;
            Verdict::Unanswered
        }
        _ => Verdict::Over,
    })
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_errands))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    const BUSY: Answer = Answer::Failed { retry: true };

    fn ask(errands: &mut [Errand<u32>], now: u64) -> Option<u32> {
        let errand = next(errands, |_| true, Millis(now))?;
        errand.asked();
        Some(errand.rmb)
    }

    fn answer(errands: &mut [Errand<u32>], answer: Answer, now: u64) -> Option<Verdict> {
        settle(errands, answer, |a, b| a == b, Millis(now))
    }

    #[test]
    fn a_refused_one_keeps_nobody_waiting() {
        let mut errands = [0, 1, 2].map(|rmb| {
            let subject = if rmb == 0 {
                Subject::Confirm
            } else {
                Subject::Delete
            };
            Errand::new(subject, rmb)
        });
        let mut now = 1_000;
        assert_eq!(ask(&mut errands, now), Some(0));
        let verdict = answer(&mut errands, BUSY, now);
        assert_eq!(verdict, Some(Verdict::Again));
        // Meanwhile the others, in their order.
        for rmb in [1, 2] {
            assert_eq!(ask(&mut errands, now), Some(rmb));
            let verdict = answer(&mut errands, BUSY, now);
            assert_eq!(verdict, Some(Verdict::Again));
        }
        assert_eq!(ask(&mut errands, now + 499), None);
        // And it comes to its end.
        for tries in 2..=PATIENCE {
            now += 500;
            for rmb in [0, 1, 2] {
                assert_eq!(ask(&mut errands, now), Some(rmb));
                let verdict = answer(&mut errands, BUSY, now);
                if tries < PATIENCE {
                    assert_eq!(verdict, Some(Verdict::Again));
                } else {
                    assert_eq!(verdict, Some(Verdict::Over));
                    errands.rotate_left(1);
                }
            }
        }
    }

    #[test]
    fn what_is_deleted_meanwhile_is_not_confirmed_again() {
        let mut errands = [
            Errand::new(Subject::Confirm, 1),
            Errand::new(Subject::Delete, 2),
            Errand::new(Subject::Delete, 1),
        ];
        assert_eq!(ask(&mut errands, 0), Some(1));
        assert_eq!(answer(&mut errands, BUSY, 0), Some(Verdict::Replaced));
        assert_eq!(errands[0].subject, Subject::Confirm);
    }

    #[test]
    fn what_is_confirmed_again_meanwhile_is_neither_known_nor_refused() {
        for first in [BUSY, Answer::Failed { retry: false }, Answer::Done] {
            let mut errands = [1, 1].map(|rmb| Errand::new(Subject::Confirm, rmb));
            assert_eq!(ask(&mut errands, 0), Some(1));
            assert_eq!(answer(&mut errands, first, 0), Some(Verdict::Replaced));
            // The other one, after that is removed.
            let [_, mut second] = errands;
            let second = core::slice::from_mut(&mut second);
            assert_eq!(ask(second, 0), Some(1));
            assert_eq!(answer(second, Answer::Done, 0), Some(Verdict::Over));
        }
    }

    #[test]
    fn what_is_deleted_is_over_whatever_comes() {
        let mut errands = [
            Errand::new(Subject::Delete, 1),
            Errand::new(Subject::Confirm, 1),
        ];
        assert_eq!(ask(&mut errands, 0), Some(1));
        let verdict = answer(&mut errands, Answer::Done, 0);
        assert_eq!(verdict, Some(Verdict::Over));
    }

    #[test]
    fn what_is_for_another_link_is_passed_over() {
        let mut errands = [5, 6, 7].map(|rmb| Errand::new(Subject::Delete, rmb));
        let here = |errand: &Errand<u32>| errand.rmb == 6;
        let first = next(&mut errands, here, Millis(0)).map(|errand| errand.rmb);
        assert_eq!(first, Some(6));
        let verdict = answer(&mut errands, Answer::Done, 0);
        assert_eq!(verdict, Some(Verdict::Over));
        assert_eq!(errands.map(|errand| errand.rmb), [6, 5, 7]);
    }

    #[test]
    fn a_peer_that_never_answers_is_found_out() {
        let mut errands = [1, 2].map(|rmb| Errand::new(Subject::Delete, rmb));
        let mut verdicts = [Verdict::Again; 4];
        let mut now = 0;
        for verdict in &mut verdicts {
            assert!(ask(&mut errands, now).is_some());
            now += 2_000;
            *verdict = answer(&mut errands, Answer::Missing, now).unwrap();
        }
        assert_eq!(verdicts, [Verdict::Again; 4]);
        assert!(ask(&mut errands, now + 500).is_some());
        let verdict = answer(&mut errands, Answer::Missing, now + 500);
        assert_eq!(verdict, Some(Verdict::Unanswered));
        assert_eq!(ask(&mut [], now), None);
        assert_eq!(answer(&mut [], Answer::Done, 0), None);
    }
}
