//! The program that `.ci/instructions.mjs` has valgrind count: rounds of one unit, and nothing else that depends on how
//! many rounds there are. Two runs of different length give what a round costs.
//!
//! Without arguments it names its units, one a line: frames in a round, a space, the name.

use super::unit::Unit;

pub(crate) fn main(units: &[Unit]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [name, rounds] = &arguments[..] {
        let unit = units.iter().find(|unit| unit.name == name).unwrap();
        let mut round = unit.start();
        let rounds: usize = rounds.parse().unwrap();
        let frames: usize = (0..rounds).map(|_| round()).sum();
        assert_eq!(frames, rounds * unit.frames, "{name}");
    } else {
        for Unit { name, frames, .. } in units {
            println!("{frames} {name}");
        }
    }
}
