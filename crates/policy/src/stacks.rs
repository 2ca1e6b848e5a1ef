//! Which revision of a template is meant, where recipes are kept, and which stacks nobody needs any more.

use std::collections::BTreeSet;

use ve::{Name, Revision, Stack};

/// The newest revision of a template that there is.
#[must_use]
pub fn newest(all: &BTreeSet<Stack>, template: &Name) -> Option<Revision> {
    let bare = all.iter().filter(|stack| is_bare(stack));
    bare.filter(|stack| stack.template() == template)
        .map(Stack::revision)
        .max()
}

/// The stack that keeps the recipe of an application: its own template, `own`, or where that revision has none, the
/// one on the newest revision that has it.
#[must_use]
pub fn recipe_of(all: &BTreeSet<Stack>, own: &Stack) -> Option<Stack> {
    if all.contains(own) {
        return Some(own.clone());
    }
    all.iter()
        .filter(|stack| is_of_one(stack) && is_same_but_for_revision(stack, own))
        .max_by_key(|stack| stack.revision())
        .cloned()
}

/// The stacks that nobody needs, when these are used by VEs and by work that goes on.
///
/// What is used stays, and all that it is made of. Besides, of every template its newest revision stays, and of every
/// application the stack that keeps its recipe. Everything else can be made again of those.
#[must_use]
pub fn unneeded(all: &BTreeSet<Stack>, used: &BTreeSet<Stack>) -> Vec<Stack> {
    let mut needed = used.clone();
    let mut below: Vec<_> = used.iter().filter_map(Stack::parts).collect();
    while let Some((stack, _)) = below.pop() {
        below.extend(stack.parts());
        needed.insert(stack);
    }
    let stays = |stack: &Stack| {
        let newest = || {
            let mut same = all.iter().filter(|o| is_same_but_for_revision(o, stack));
            !same.any(|other| other.revision() > stack.revision())
        };
        needed.contains(stack) || ((is_bare(stack) || is_of_one(stack)) && newest())
    };
    all.iter().filter(|stack| !stays(stack)).cloned().collect()
}

fn is_bare(stack: &Stack) -> bool {
    stack.applications().len() == 0
}

fn is_of_one(stack: &Stack) -> bool {
    stack.applications().len() == 1
}

fn is_same_but_for_revision(one: &Stack, other: &Stack) -> bool {
    one.template() == other.template() && one.applications().eq(other.applications())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stacks(texts: &[&str]) -> BTreeSet<Stack> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn texts(stacks: &[Stack]) -> Vec<String> {
        stacks.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_newest_revision_is_the_greatest_number() {
        let all = stacks(&["d", "d@2", "d@10", "d@11+git", "e@3"]);
        let newest = |name: &str| newest(&all, &Name::new(name).unwrap()).map(Revision::get);
        assert_eq!(
            (newest("d"), newest("e"), newest("f")),
            (Some(10), Some(3), None)
        );
    }

    #[test]
    fn a_recipe_is_found_at_the_newest_revision_that_has_it() {
        let all = stacks(&["d", "d+git", "d@2+git", "d@3", "d@3+git+nginx", "e@9+git"]);
        let recipe = |text: &str| recipe_of(&all, &text.parse().unwrap()).map(|s| s.to_string());
        assert_eq!(recipe("d+git").unwrap(), "d+git");
        assert_eq!(recipe("d@3+git").unwrap(), "d@2+git");
        assert_eq!(recipe("d@3+nginx"), None);
    }

    #[test]
    fn what_nobody_uses_goes_but_for_the_newest_and_for_recipes() {
        let all = [
            "d",
            "d+git",
            "d+git+nginx",
            "d+nginx",
            "d@2",
            "d@2+git",
            "d@3",
        ];
        let all = stacks(&all);
        let gone = |used: &[&str]| texts(&unneeded(&all, &stacks(used)));
        assert_eq!(gone(&[]), ["d", "d+git", "d+git+nginx", "d@2"]);
        assert_eq!(gone(&["d+git+nginx"]), ["d@2"]);
        assert_eq!(gone(&["d@2"]), ["d", "d+git", "d+git+nginx"]);
    }

    proptest! {
        #[test]
        fn what_is_used_stays_with_all_that_it_is_made_of(
            picks in proptest::collection::vec(0_usize..18, 0..6),
            there in proptest::collection::vec(0_usize..18, 0..18),
        ) {
            let bases = ["d", "d@2", "e@3"];
            let tops = ["", "+git", "+nginx", "+git+nginx", "+git+redis", "+git+nginx+redis"];
            let text = |at: usize| format!("{}{}", bases[at / 6], tops[at % 6]);
            let of = |picks: &[usize]| -> BTreeSet<Stack> {
                picks.iter().map(|at| text(*at).parse().unwrap()).collect()
            };
            let (all, used) = (of(&there), of(&picks));
            for gone in unneeded(&all, &used) {
                prop_assert!(all.contains(&gone));
                prop_assert!(!used.contains(&gone));
                for stack in &used {
                    let mut below = stack.parts();
                    while let Some((stack, _)) = below {
                        prop_assert!(stack != gone, "{} is below what is used", stack);
                        below = stack.parts();
                    }
                }
            }
            // Once it is gone, nothing more goes.
            let mut left = all;
            for gone in unneeded(&left, &used) {
                left.remove(&gone);
            }
            prop_assert_eq!(unneeded(&left, &used), Vec::new());
        }
    }
}
