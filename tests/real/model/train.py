"""Fits a multinomial logistic regression to Fisher's 150 irises and writes its weights as JSON.

    python train.py iris.csv weights.json

Plain gradient descent on standardised measurements: under a second, the same weights every time, no library.
"""

import csv
import json
import math
import sys

STEPS = 400
STEP_SIZE = 0.5


def softmax(scores):
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def fit(flowers, labels, classes):
    """Weights, one row a class: a bias and one factor per measurement."""
    weights = [[0.0] * (len(flowers[0]) + 1) for _ in classes]
    for _ in range(STEPS):
        slope = [[0.0] * len(row) for row in weights]
        for flower, label in zip(flowers, labels):
            inputs = [1.0, *flower]
            guess = softmax([sum(w * x for w, x in zip(row, inputs)) for row in weights])
            for row, probability, name in zip(slope, guess, classes):
                error = probability - (name == label)
                for i, x in enumerate(inputs):
                    row[i] += error * x
        for row, change in zip(weights, slope):
            for i, value in enumerate(change):
                row[i] -= STEP_SIZE * value / len(flowers)
    return weights


def main(data_path, weights_path):
    with open(data_path, newline="") as file:
        rows = list(csv.reader(file))[1:]
    flowers = [[float(value) for value in row[:-1]] for row in rows]
    labels = [row[-1] for row in rows]
    classes = sorted(set(labels))
    columns = list(zip(*flowers))
    mean = [sum(column) / len(column) for column in columns]
    deviation = [math.sqrt(sum((x - m) ** 2 for x in c) / len(c)) for c, m in zip(columns, mean)]
    standard = [[(x - m) / d for x, m, d in zip(flower, mean, deviation)] for flower in flowers]
    model = {"classes": classes, "mean": mean, "deviation": deviation, "weights": fit(standard, labels, classes)}
    with open(weights_path, "w") as file:
        json.dump(model, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
