"""torchvision's networks by name, and the classifier around them."""

import lightning as L
import pytest
import torch
from torchvision.models import resnet18

from datamodules import DigitsDataModule
from models import ConvNet, ImageClassifier, VisionNet
from models.vision import ARCHITECTURES


@pytest.mark.parametrize(("architecture", "width"), [("resnet18", 512), ("resnet50", 2048), ("efficientnet_b0", 1280)])
def test_a_cifar_stem_keeps_the_resolution(architecture, width):
    images = torch.randn(2, 3, 32, 32)
    sides = {}
    for stem in (True, False):
        net = VisionNet(architecture, classes=7, cifar_stem=stem).eval()
        last = net.network.layer4 if architecture.startswith("resnet") else net.network.features
        last.register_forward_hook(lambda _, __, output, stem=stem: sides.update({stem: output.shape[1:]}))
        with torch.no_grad():
            assert net(images).shape == (2, 7)
    factor = 4 if architecture.startswith("resnet") else 2
    assert sides[True] == (width, factor * 1, factor * 1)
    assert sides[False] == (width, 1, 1)


def test_weights_from_a_file(tmp_path):
    source = resnet18(num_classes=5)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    same = VisionNet("resnet18", classes=5, weights=str(tmp_path / "weights.pth"))
    assert all(torch.equal(a, b) for a, b in zip(same.network.parameters(), source.parameters(), strict=True))
    other = VisionNet("resnet18", classes=3, weights=str(tmp_path / "weights.pth"))
    assert other.network.fc.out_features == 3
    assert torch.equal(other.network.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_what_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"architecture='resnet19'.*efficientnet_b0.*resnet50"):
        VisionNet("resnet19")
    with pytest.raises(ValueError, match=r"weights='V9' of resnet18: choose one of IMAGENET1K_V1, DEFAULT"):
        VisionNet("resnet18", weights="V9")
    with pytest.raises(ValueError, match="classes=0"):
        VisionNet("resnet18", classes=0)

    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("models.vision.get_model", no_network)
    with pytest.raises(ConnectionError, match="give weights=<file>"):
        VisionNet("resnet18", weights="DEFAULT")
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no state dict"):
        VisionNet("resnet18", weights=str(tmp_path / "other.pth"))
    assert len(ARCHITECTURES) > 15


def test_a_classifier_for_other_classes_than_the_data_has_is_refused_before_it_starts():
    class Data(L.LightningDataModule):
        num_classes = 1000

        def test_dataloader(self):
            raise AssertionError("never asked")

    with pytest.raises(ValueError, match="classes=10, and the data has 1000"):
        L.Trainer(logger=False, accelerator="cpu").test(ImageClassifier(VisionNet("resnet18")), Data(), verbose=False)


def test_a_saved_classifier_tests_the_same(tmp_path):
    class Model(ImageClassifier):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def model(seed):
        torch.manual_seed(seed)
        return Model(ConvNet(batch_norm=True))

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"default_root_dir": tmp_path, "enable_checkpointing": False}
    run, data = L.Trainer(max_steps=20, limit_val_batches=0, **quiet), DigitsDataModule()
    run.fit(model(0), data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    (before,) = run.test(run.lightning_module, data, verbose=False)
    assert before["test/accuracy"] > 0.3  # it has learned: a fresh one has 0.1
    (after,) = L.Trainer(**quiet).test(model(1), data, ckpt_path=tmp_path / "model.ckpt", verbose=False)
    assert after == before


def test_the_classifier_takes_mixed_labels_and_counts_top_five():
    torch.manual_seed(0)
    model = ImageClassifier(torch.nn.Flatten(), classes=12, label_smoothing=0.1)
    logits, labels = torch.randn(64, 12, 1), torch.randint(12, (64,))
    hard = model.training_step((logits, labels), 0)
    mixed = model.training_step((logits, torch.nn.functional.one_hot(labels, 12).float()), 0)
    torch.testing.assert_close(hard, mixed)
    metrics = model.metrics["val_metrics"]
    metrics.update(logits.flatten(1), labels)
    ranks = (logits.flatten(1) > logits.flatten(1).gather(1, labels[:, None])).sum(1)
    computed = {name: float(value) for name, value in metrics.compute().items()}
    assert computed == pytest.approx(
        {"val/accuracy": float((ranks < 1).float().mean()), "val/top5": float((ranks < 5).float().mean())}
    )
