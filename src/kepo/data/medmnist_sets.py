"""The 2-D sets of MedMNIST v2 (doi 10.1038/s41597-022-01721-8): what is asked of their images, and with which words.

Labels stand in the order of the sets' numbers, worded for a reader: where the published word cannot be read without its
paper ("femur-left", the grades "0".."4", "pleural") it is written out. Grades are those of the International Clinical
Diabetic Retinopathy scale, which RetinaMNIST's source uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NO_FINDING = "no finding"
"""What is right where none of the labels of a multi-label set is present."""


@dataclass(frozen=True, slots=True)
class MedMnistSet:
    """One set.

    Attributes:
        title: As published, "PathMNIST".
        modality: One of `kepo.data.omnimedvqa.MODALITIES`.
        task: Question type, in the words of OmniMedVQA.
        question: What is asked of every image.
        labels: Label number -> option text.
        multi_label: Whether a row has a flag per label (any number of them set) instead of one label.
        licence: As the set is published under.
    """

    title: str
    modality: str
    task: str
    question: str
    labels: tuple[str, ...]
    multi_label: bool = False
    licence: str = "CC BY 4.0"


_DIAGNOSIS, _ATTRIBUTE, _ANATOMY = "Disease Diagnosis", "Other Biological Attributes", "Anatomy Identification"
_ORGANS = (
    "urinary bladder",
    "left femur",
    "right femur",
    "heart",
    "left kidney",
    "right kidney",
    "liver",
    "left lung",
    "right lung",
    "pancreas",
    "spleen",
)


def _organs(letter: str, view: str) -> MedMnistSet:
    question = f"Which organ is in the centre of this {view} CT slice of the body?"
    return MedMnistSet(f"Organ{letter}MNIST", "CT", _ANATOMY, question, _ORGANS)


MEDMNIST_SETS: Mapping[str, MedMnistSet] = {
    "pathmnist": MedMnistSet(
        title="PathMNIST",
        modality="Microscopy",
        task=_ATTRIBUTE,
        question="Which tissue does this patch of a colorectal histology slide (hematoxylin and eosin) show?",
        labels=(
            "adipose tissue",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
    ),
    "chestmnist": MedMnistSet(
        title="ChestMNIST",
        modality="X-Ray",
        task=_DIAGNOSIS,
        question="Which of these is found in this frontal chest X-ray?",
        labels=(
            "atelectasis",
            "cardiomegaly",
            "effusion",
            "infiltration",
            "mass",
            "nodule",
            "pneumonia",
            "pneumothorax",
            "consolidation",
            "edema",
            "emphysema",
            "fibrosis",
            "pleural thickening",
            "hernia",
        ),
        multi_label=True,
    ),
    "dermamnist": MedMnistSet(
        title="DermaMNIST",
        modality="Dermoscopy",
        task=_DIAGNOSIS,
        question="What is the diagnosis of the pigmented skin lesion in this dermatoscopic image?",
        labels=(
            "actinic keratosis or intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesion",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevus",
            "vascular lesion",
        ),
        licence="CC BY-NC 4.0",
    ),
    "octmnist": MedMnistSet(
        title="OCTMNIST",
        modality="OCT",
        task=_DIAGNOSIS,
        question="What does this optical coherence tomography image of the retina show?",
        labels=("choroidal neovascularization", "diabetic macular edema", "drusen", "a normal retina"),
    ),
    "pneumoniamnist": MedMnistSet(
        title="PneumoniaMNIST",
        modality="X-Ray",
        task=_DIAGNOSIS,
        question="What does this chest X-ray of a child show?",
        labels=("normal lungs", "pneumonia"),
    ),
    "retinamnist": MedMnistSet(
        title="RetinaMNIST",
        modality="Fundus",
        task="Lesion Grading",
        question="How severe is the diabetic retinopathy in this fundus photograph?",
        labels=(
            "no diabetic retinopathy",
            "mild non-proliferative diabetic retinopathy",
            "moderate non-proliferative diabetic retinopathy",
            "severe non-proliferative diabetic retinopathy",
            "proliferative diabetic retinopathy",
        ),
    ),
    "breastmnist": MedMnistSet(
        title="BreastMNIST",
        modality="Ultrasound",
        task=_DIAGNOSIS,
        question="How is the finding in this breast ultrasound image classified?",
        labels=("malignant", "normal or benign"),
    ),
    "bloodmnist": MedMnistSet(
        title="BloodMNIST",
        modality="Microscopy",
        task=_ATTRIBUTE,
        question="Which type of blood cell does this microscopic image show?",
        labels=(
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocyte (myelocyte, metamyelocyte or promyelocyte)",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
    ),
    "tissuemnist": MedMnistSet(
        title="TissueMNIST",
        modality="Microscopy",
        task=_ATTRIBUTE,
        question="Which type of human kidney cortex cell does this microscopic image show?",
        labels=(
            "collecting duct or connecting tubule",
            "distal convoluted tubule",
            "glomerular endothelial cell",
            "interstitial endothelial cell",
            "leukocyte",
            "podocyte",
            "proximal tubule segment",
            "thick ascending limb",
        ),
    ),
    "organamnist": _organs("A", "axial"),
    "organcmnist": _organs("C", "coronal"),
    "organsmnist": _organs("S", "sagittal"),
}
"""The sets by the names of their files."""
