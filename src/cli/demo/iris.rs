//! Owns the 150 iris measurements that the demo's model is fitted on and that the demo scores.
//!
//! They are those of R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of
//! Eugenics 7 (1936), collected by E. Anderson; public domain. The copy here follows scikit-learn's
//! `iris.csv`, which keeps Fisher's values in rows 35 and 38 where the widely copied UCI file has typing
//! errors; the species codes are written out as names.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

const CSV: &str = include_str!("iris.csv");

/// Sepal length, sepal width, petal length and petal width of one flower, in centimetres, in this order.
pub type Measurements = [f64; 4];

/// The three species, in the order of the model's probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Species {
    /// Iris setosa: short petals, apart from the other two.
    Setosa,
    /// Iris versicolor.
    Versicolor,
    /// Iris virginica: the longest petals; overlaps a little with versicolor.
    Virginica,
}

impl Species {
    /// All three, each at the index of its probability.
    pub const ALL: [Self; 3] = [Self::Setosa, Self::Versicolor, Self::Virginica];

    /// The lower-case name that the data file and the model's answers use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Setosa => "setosa",
            Self::Versicolor => "versicolor",
            Self::Virginica => "virginica",
        }
    }
}

impl fmt::Display for Species {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Species {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|species| species.name() == name)
            .with_context(|| format!("no iris species is called {name:?}"))
    }
}

/// One measured flower and what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flower {
    /// What the model is given.
    pub measurements: Measurements,
    /// What the botanist said: the answer the model should give.
    pub species: Species,
}

/// The 150 flowers in the file's order: 50 setosa, 50 versicolor, 50 virginica.
///
/// # Errors
/// Names the line of the data file that cannot be read. The file is part of the program and a test reads it,
/// so this means an edit to the file went wrong.
pub fn flowers() -> Result<Vec<Flower>> {
    CSV.lines()
        .enumerate()
        .skip(1)
        .map(|(index, line)| parse(line).with_context(|| format!("iris.csv:{}", index + 1)))
        .collect()
}

fn parse(line: &str) -> Result<Flower> {
    let mut fields = line.split(',');
    let mut measurements = Measurements::default();
    for measurement in &mut measurements {
        let field = fields.next().context("too few fields")?;
        *measurement = field.parse().with_context(|| format!("{field:?} is no number"))?;
    }
    let species = fields.next().context("no species")?.parse()?;
    ensure!(fields.next().is_none(), "too many fields");
    Ok(Flower { measurements, species })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_fifty_of_each_species() {
        let flowers = flowers().unwrap();
        for (expected, group) in Species::ALL.into_iter().zip(flowers.chunks(50)) {
            assert_eq!(group.len(), 50);
            assert!(group.iter().all(|flower| flower.species == expected));
        }
        assert_eq!(flowers.len(), 150);
    }

    #[test]
    fn the_sums_are_those_of_fishers_table() {
        // Fisher 1936, table 2: means of 50 plants; setosa 5.006 3.428 1.462 0.246, versicolor 5.936 2.770
        // 4.260 1.326, virginica 6.588 2.974 5.552 2.026. The UCI copy misses setosa's (3.418, 1.464, 0.244).
        let means =
            [[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326], [6.588, 2.974, 5.552, 2.026]];
        for (mean, group) in means.iter().zip(flowers().unwrap().chunks(50)) {
            for (column, expected) in mean.iter().enumerate() {
                let sum: f64 = group.iter().map(|flower| flower.measurements[column]).sum();
                assert!((sum / 50.0 - expected).abs() < 1e-9, "column {column}: {}", sum / 50.0);
            }
        }
    }

    #[test]
    fn a_broken_line_is_named_by_its_fault() {
        for (line, fault) in [
            ("5.1,3.5,1.4", "too few fields"),
            ("5.1,x,1.4,0.2,setosa", "\"x\" is no number"),
            ("5.1,3.5,1.4,0.2", "no species"),
            ("5.1,3.5,1.4,0.2,rose", "no iris species is called \"rose\""),
            ("5.1,3.5,1.4,0.2,setosa,7", "too many fields"),
        ] {
            assert_eq!(parse(line).unwrap_err().to_string(), fault, "{line}");
        }
    }
}
