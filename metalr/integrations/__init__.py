"""MetaLR in other loops: Hugging Face's Trainer, XGBoost, Lightning Fabric, and code that knows a scheduler alone.

One module each, for its one library is imported there and nowhere else:

- `metalr.integrations.huggingface.MetaLRTrainerCallback`
- `metalr.integrations.xgboost.MetaLRTrainingCallback`
- `metalr.integrations.fabric.FabricMetaLR`
- `metalr.integrations.scheduler.MetaLRScheduler`

Lightning's own Trainer has `metalr.MetaLRCallback`. They may import `metalr.core`.
"""
