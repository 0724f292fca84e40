"""Score predictions (a dataset, or a folder of ordinary files) against truth, and print the headline of each task."""

import sys

import unibench


def main(predictions: str, truth: str) -> None:
    report = unibench.score(predictions, truth)
    for name, task in report.tasks.items():
        column = task.columns[task.primary]
        print(f"{name:14} {task.primary:18} {column.value:.4f} {column.unit}")
    print(f"the page with pictures: {predictions}/score/report.html")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
