//! Owns the fit of the demo's model, run by tests only: the program ships its result, `weights.json`.
//!
//! Maximum likelihood with an L2 penalty, found by Newton's method from zeros. The penalty covers the
//! intercepts too: the softmax does not change when all three species' weights move together, and so the
//! penalty alone makes the minimum unique and the Hessian positive definite.

use super::iris::{Flower, Species};
use super::model::{Class, Model};

/// Weight of half the squared norm of all 15 parameters against the sum of the 150 log likelihoods.
const PENALTY: f64 = 0.1;
/// Newton doubles the right digits with each step; a gradient this small is far below what the weights are
/// compared to.
const GRADIENT_TOLERANCE: f64 = 1e-10;
const MAX_STEPS: usize = 50;

const CLASSES: usize = Species::ALL.len();
/// The intercept and four coefficients of one class.
const WIDTH: usize = 5;
const PARAMETERS: usize = CLASSES * WIDTH;

type Vector = [f64; PARAMETERS];
type Matrix = [[f64; PARAMETERS]; PARAMETERS];

/// The model that fits the flowers best. Deterministic: the same flowers give the same weights.
///
/// # Panics
/// If Newton's method has not converged after 50 steps (the iris data needs about ten).
pub(super) fn fit(flowers: &[Flower]) -> Model {
    let mut parameters = [0.0; PARAMETERS];
    for _ in 0..MAX_STEPS {
        let (gradient, hessian) = derivatives(&parameters, flowers);
        if gradient.iter().all(|slope| slope.abs() < GRADIENT_TOLERANCE) {
            return model(&parameters);
        }
        let step = solve(hessian, gradient);
        for (parameter, step) in parameters.iter_mut().zip(step) {
            *parameter -= step;
        }
    }
    panic!("no minimum within {MAX_STEPS} steps");
}

/// Parameter `class * WIDTH` is the intercept of that class, its coefficients follow.
fn model(parameters: &Vector) -> Model {
    let (rows, _) = parameters.as_chunks::<WIDTH>();
    let classes = std::array::from_fn(|index| {
        let [intercept, coefficients @ ..] = rows[index];
        Class { species: Species::ALL[index], intercept, coefficients }
    });
    Model { classes }
}

/// Gradient and Hessian of the penalised negative log likelihood.
fn derivatives(parameters: &Vector, flowers: &[Flower]) -> (Vector, Matrix) {
    let mut gradient = parameters.map(|parameter| PENALTY * parameter);
    let mut hessian = [[0.0; PARAMETERS]; PARAMETERS];
    for (index, row) in hessian.iter_mut().enumerate() {
        row[index] = PENALTY;
    }
    let model = model(parameters);
    for flower in flowers {
        let [a, b, c, d] = flower.measurements;
        let input = [1.0, a, b, c, d];
        let probabilities = model.predict(&[flower.measurements])[0].probabilities;
        for k in 0..PARAMETERS {
            let (class, x, p) = (k / WIDTH, input[k % WIDTH], probabilities[k / WIDTH]);
            let target = f64::from(u8::from(Species::ALL[class] == flower.species));
            gradient[k] += (p - target) * x;
            for l in 0..PARAMETERS {
                let same = f64::from(u8::from(l / WIDTH == class));
                hessian[k][l] += p * (same - probabilities[l / WIDTH]) * x * input[l % WIDTH];
            }
        }
    }
    (gradient, hessian)
}

/// Gaussian elimination; no pivoting, as the matrix is positive definite.
fn solve(mut matrix: Matrix, mut right: Vector) -> Vector {
    for pivot in 0..PARAMETERS {
        let above = matrix[pivot];
        for row in pivot + 1..PARAMETERS {
            let factor = matrix[row][pivot] / above[pivot];
            for (value, above) in matrix[row].iter_mut().zip(&above).skip(pivot) {
                *value -= factor * above;
            }
            right[row] -= factor * right[pivot];
        }
    }
    for row in (0..PARAMETERS).rev() {
        for column in row + 1..PARAMETERS {
            right[row] -= matrix[row][column] * right[column];
        }
        right[row] /= matrix[row][row];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elimination_solves_what_it_is_given() {
        let mut matrix = [[0.5; PARAMETERS]; PARAMETERS];
        for (index, row) in matrix.iter_mut().enumerate() {
            row[index] = 10.0 + index as f64;
        }
        let wanted: Vector = std::array::from_fn(|index| index as f64 - 7.0);
        let right = matrix.map(|row| row.iter().zip(&wanted).map(|(a, b)| a * b).sum());
        for (found, wanted) in solve(matrix, right).iter().zip(&wanted) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
    }
}
