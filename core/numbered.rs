// SPDX-License-Identifier: GPL-2.0

//! Walking through a list that changes meanwhile, without its lock between two steps: entries have numbers that only grow,
//! so that none is skipped or met twice, whatever goes from before or comes behind it.

#![forbid(unsafe_code)]

/// The first entry of a list in the order of its numbers that has a greater one than `last`, if there is any.
pub fn after<T>(list: &[T], number: impl Fn(&T) -> u64, last: u64) -> Option<&T> {
    list.get(list.partition_point(|entry| number(entry) <= last))
}

#[cfg_attr(CONFIG_KUNIT = "y", kernel::macros::kunit_tests(smc_rs_numbered))]
#[cfg(any(test, CONFIG_KUNIT = "y"))]
mod tests {
    use super::*;

    #[test]
    fn who_stays_is_met_once() {
        let list = [1u64, 2, 3, 4, 6];
        let number = |entry: &u64| *entry;
        let mut last = 0;
        let mut met = [0u64; 5];
        for (first, place) in met.iter_mut().enumerate() {
            // What was met goes with each step.
            let Some(next) = after(&list[first..], number, last) else {
                break;
            };
            last = *next;
            *place = last;
        }
        assert_eq!(met, list);
        // As does what was not.
        assert_eq!(after(&list[4..], number, 2), Some(&6));
        assert_eq!(after(&list, number, 6), None);
        assert_eq!(after(&[], number, 0), None);
    }
}
