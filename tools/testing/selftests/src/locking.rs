//! The order of the module's locks that lockdep has found, against the one that is written down.

use crate::{check, sys, Fail, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Has the order in a table, outermost first.
const DOCUMENT: &str = include_str!("../../../../Documentation/locking.rst");
/// The classes of locks that lockdep knows, and behind each what was taken while it was held.
const FOUND: &str = "/proc/lockdep";

/// Row of the table, and place among the names of the row.
type Place = (usize, usize);

/// Fails if locks were nested in another order than that of the table, others in between or not, or if one is not there. To be
/// asked while the module is loaded: its classes go with it.
pub fn order_is_documented() -> Outcome {
    let places = documented()?;
    let classes = parse(&sys::read_file(FOUND)?)?;
    let mut wrong = BTreeSet::new();
    let mut seen = 0;
    for class in classes.values() {
        let Some(outer) = places.of(&class.name) else {
            if is_rust(&class.name) {
                wrong.insert(format!("{} is not in the table", class.name));
            }
            continue;
        };
        seen += 1;
        for path in paths(&classes, class, &places) {
            let inner = path.last().and_then(|name| places.of(name));
            if inner.is_some_and(|inner| inner < outer) {
                wrong.insert(format!("{} -> {}", class.name, path.join(" -> ")));
            }
        }
    }
    check!(seen > 10, "lockdep knows {seen} locks of the table only");
    check!(
        wrong.is_empty(),
        "locks in another order than in Documentation/locking.rst:\n{}",
        wrong.into_iter().collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

/// Where each lock of the table is.
struct Places(BTreeMap<&'static str, Place>);

impl Places {
    /// Names of classes may begin with the module that the lock is in.
    fn of(&self, class: &str) -> Option<Place> {
        let known = |name: &str| self.0.get(name).copied();
        known(class).or_else(|| known(class.split_once("::")?.1))
    }
}

fn documented() -> Outcome<Places> {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != "Order");
    let border = |line: &&str| line.starts_with("=== ");
    let columns = lines
        .find(border)
        .ok_or_else(|| Fail("no table of locks".into()))?;
    let begin = 4;
    let end = columns[begin..]
        .find(' ')
        .map_or(columns.len(), |len| begin + len);
    let mut places = BTreeMap::new();
    let (mut row, mut place) = (0, 0);
    for line in lines.skip_while(|line| !border(line)).skip(1) {
        if border(&line) {
            break;
        }
        if !line.starts_with(' ') {
            (row, place) = (row + 1, 0);
        }
        let names = line.get(begin..end.min(line.len())).unwrap_or_default();
        for name in names.split("``").skip(1).step_by(2) {
            places.insert(name, (row, place));
            place += 1;
        }
    }
    Ok(Places(places))
}

struct Class {
    name: String,
    /// Keys of the classes that were taken right under this one.
    inner: Vec<String>,
}

/// By their keys.
fn parse(text: &str) -> Outcome<BTreeMap<String, Class>> {
    let mut classes: BTreeMap<String, Class> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let unread = || Fail(format!("{FOUND} has the line '{line}'"));
        if let Some(rest) = line.strip_prefix(" -> [") {
            let (key, _) = rest.split_once(']').ok_or_else(unread)?;
            let class = classes.get_mut(&current).ok_or_else(unread)?;
            class.inner.push(key.into());
        } else if let Some((counts, rest)) = line.split_once(" BD:") {
            let (_, name) = rest.split_once(": ").ok_or_else(unread)?;
            current = counts
                .split_whitespace()
                .next()
                .ok_or_else(unread)?
                .to_string();
            let class = Class {
                name: without_number(without_number(name, '/'), '#').to_string(),
                inner: Vec::new(),
            };
            classes.insert(current.clone(), class);
        }
    }
    Ok(classes)
}

/// Further classes of one name have a number behind it, and so have nested ones.
fn without_number(name: &str, sign: char) -> &str {
    match name.rsplit_once(sign) {
        Some((rest, number)) if number.parse::<u32>().is_ok() => rest,
        _ => name,
    }
}

/// The ways from a class to the next ones of the table, by others.
fn paths(classes: &BTreeMap<String, Class>, from: &Class, places: &Places) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next: Vec<_> = from.inner.iter().map(|key| (key, Vec::new())).collect();
    while let Some((key, mut path)) = next.pop() {
        let Some(class) = classes.get(key).filter(|_| seen.insert(key)) else {
            continue;
        };
        path.push(class.name.clone());
        if places.of(&class.name).is_some() {
            found.push(path);
        } else {
            next.extend(class.inner.iter().map(|key| (key, path.clone())));
        }
    }
    found
}

/// Names of locks in Rust, which are the module's: the kernel's own are C.
fn is_rust(name: &str) -> bool {
    name.contains("::") || name.contains(".rs:")
}
