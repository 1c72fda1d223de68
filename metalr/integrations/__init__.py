"""MetaLR in other loops: Hugging Face's Trainer, XGBoost, Lightning Fabric, and code that only calls a scheduler.

Each has one module, the only one that imports its library:

- `metalr.integrations.huggingface.MetaLRTrainerCallback`
- `metalr.integrations.xgboost.MetaLRTrainingCallback`
- `metalr.integrations.fabric.FabricMetaLR`
- `metalr.integrations.scheduler.MetaLRScheduler`

Lightning's own Trainer has `metalr.MetaLRCallback`. They may import `metalr.core`.
"""
