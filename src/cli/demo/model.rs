//! Owns the demo's model: a multinomial logistic regression over the four raw measurements, read from
//! `weights.json`.
//!
//! The score of a species is its intercept plus the dot product of its coefficients with the measurements
//! (centimetres, not standardised); the probabilities are the softmax of the three scores. `fit` made the
//! file and a test refits it: `cargo test --lib demo::model -- --ignored` writes it anew.

use serde::{Deserialize, Serialize};

use super::iris::{Measurements, Species};

const WEIGHTS: &str = include_str!("weights.json");

/// The fitted model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// One for each of [`Species::ALL`], in that order.
    pub(super) classes: [Class; 3],
}

/// The linear score of one species.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    pub(super) species: Species,
    pub(super) intercept: f64,
    /// Per centimetre of each measurement.
    pub(super) coefficients: Measurements,
}

/// What the model says about one flower.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The most probable species.
    pub species: Species,
    /// Of each of [`Species::ALL`], in that order; they add up to 1.
    pub probabilities: [f64; 3],
}

impl Model {
    /// The model whose weights ship with the program.
    ///
    /// # Errors
    /// Only if the weight file in the program is broken, which a test rules out.
    pub fn load() -> serde_json::Result<Self> {
        serde_json::from_str(WEIGHTS)
    }

    /// One prediction per flower, in the order given. The measurements must be finite.
    pub fn predict(&self, flowers: &[Measurements]) -> Vec<Prediction> {
        flowers.iter().map(|flower| self.predict_one(flower)).collect()
    }

    fn predict_one(&self, flower: &Measurements) -> Prediction {
        let probabilities = softmax(self.classes.each_ref().map(|class| class.score(flower)));
        let mut best = (self.classes[0].species, probabilities[0]);
        for (class, &probability) in self.classes.iter().zip(&probabilities) {
            if probability > best.1 {
                best = (class.species, probability);
            }
        }
        Prediction { species: best.0, probabilities }
    }
}

impl Class {
    fn score(&self, flower: &Measurements) -> f64 {
        self.coefficients
            .iter()
            .zip(flower)
            .fold(self.intercept, |score, (coefficient, value)| score + coefficient * value)
    }
}

/// Shifted by the largest score first, so that no exponential overflows.
fn softmax(scores: [f64; 3]) -> [f64; 3] {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials = scores.map(|score| (score - largest).exp());
    let total: f64 = exponentials.iter().sum();
    exponentials.map(|exponential| exponential / total)
}

#[cfg(test)]
mod tests {
    use super::super::fit::fit;
    use super::super::iris::flowers;
    use super::*;

    #[test]
    fn the_shipped_weights_are_those_a_fresh_fit_gives() {
        let (shipped, fresh) = (Model::load().unwrap(), fit(&flowers().unwrap()));
        assert_eq!(shipped.classes.each_ref().map(|class| class.species), Species::ALL);
        for (shipped, fresh) in shipped.classes.iter().zip(&fresh.classes) {
            assert_eq!(shipped.species, fresh.species);
            assert!((shipped.intercept - fresh.intercept).abs() < 1e-6, "{shipped:?} {fresh:?}");
            for (shipped, fresh) in shipped.coefficients.iter().zip(&fresh.coefficients) {
                assert!((shipped - fresh).abs() < 1e-6, "{shipped} {fresh}");
            }
        }
    }

    #[test]
    fn at_most_three_of_the_hundred_and_fifty_are_taken_for_another() {
        let flowers = flowers().unwrap();
        let measurements: Vec<_> = flowers.iter().map(|flower| flower.measurements).collect();
        let predictions = Model::load().unwrap().predict(&measurements);
        let wrong =
            flowers.iter().zip(&predictions).filter(|(flower, said)| flower.species != said.species).count();
        assert_eq!(predictions.len(), 150);
        assert!(wrong <= 3, "{wrong} wrong");
    }

    #[test]
    fn probabilities_add_up_to_one_and_the_largest_names_the_species() {
        for prediction in Model::load().unwrap().predict(&[[5.1, 3.5, 1.4, 0.2], [0.0; 4], [100.0; 4]]) {
            assert!((prediction.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let index = Species::ALL.iter().position(|species| *species == prediction.species).unwrap();
            assert!(prediction.probabilities.iter().all(|other| *other <= prediction.probabilities[index]));
        }
    }

    #[test]
    #[ignore = "writes src/cli/demo/weights.json; run it after a change to the fit or the data"]
    fn write_the_weights() {
        let model = fit(&flowers().unwrap());
        let text = serde_json::to_string_pretty(&model).unwrap() + "\n";
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/weights.json"), text).unwrap();
    }
}
