//! The program that the README of the crate shows, which documentation tests run, is the one that the README of the
//! repository shows. A test of its own because a published crate cannot read a file outside its folder.
#![cfg(test)]

const CRATE: &str = include_str!("../README.md");
const REPOSITORY: &str = include_str!("../../../README.md");

fn program(readme: &str) -> &str {
    let (_, rest) = readme.split_once("```rust\n").expect("a program in Rust");
    rest.split_once("\n```").expect("its end").0
}

#[test]
fn both_show_the_same_program() {
    assert_eq!(program(CRATE), program(REPOSITORY));
    assert!(
        !REPOSITORY.rsplit_once(program(REPOSITORY)).unwrap().1.contains("```rust"),
        "a program nobody runs"
    );
}
