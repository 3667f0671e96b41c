"""The errors that the paper reports, to stand beside measured ones.

Das et al., "CrysGNN: Distilling pre-trained knowledge to enhance property prediction for
crystalline materials", AAAI 2023, arXiv 2301.05852. Test MAE without and with distillation, over
the whole of two data sets: JARVIS-DFT 2021.8.18 (55,722 crystals, labels as JARVIS names them) and
Materials Project 2018.6.1 (69,239, named as JARVIS distributes them). Their epoch was chosen on the
test set, and the teacher had seen the test crystals without their labels.
"""

_STUDENTS = ("cgcnn", "crysxpp", "gatgnn", "alignn")

_ROWS = {
    "e_form": ((0.039, 0.032), (0.041, 0.035), (0.096, 0.091), (0.026, 0.024)),
    "gap pbe": ((0.388, 0.293), (0.347, 0.287), (0.427, 0.403), (0.271, 0.253)),
    "formation_energy_peratom": ((0.063, 0.047), (0.062, 0.048), (0.132, 0.117), (0.036, 0.035)),
    "optb88vdw_bandgap": ((0.200, 0.160), (0.190, 0.176), (0.275, 0.235), (0.148, 0.131)),
    "optb88vdw_total_energy": ((0.078, 0.053), (0.072, 0.055), (0.194, 0.137), (0.039, 0.038)),
    "ehull": ((0.170, 0.121), (0.139, 0.114), (0.241, 0.203), (0.091, 0.083)),
    "mbj_bandgap": ((0.410, 0.340), (0.378, 0.350), (0.395, 0.386), (0.331, 0.325)),
    "spillage": ((0.386, 0.374), (0.363, 0.357), (0.350, 0.348), (0.358, 0.356)),
    "slme": ((5.040, 4.790), (5.110, 4.630), (5.050, 4.950), (4.650, 4.590)),
    "bulk_modulus_kv": ((12.45, 12.31), (13.61, 12.70), (11.64, 11.53), (11.20, 10.99)),
    "shear_modulus_gv": ((11.24, 10.87), (11.20, 10.56), (10.41, 10.35), (9.860, 9.800)),
}

PUBLISHED = {
    (label, student): errors
    for label, row in _ROWS.items()
    for student, errors in zip(_STUDENTS, row)
}
"""(property, student) → (vanilla, distilled) test MAE, in the property's unit."""

PUBLISHED_FOR = {
    label: "MP 2018.6.1, 69,239 crystals"
    if label in ("e_form", "gap pbe")
    else "JARVIS-DFT 2021.8.18, 55,722 crystals"
    for label in _ROWS
}
"""Property → the data set that the errors are of."""
