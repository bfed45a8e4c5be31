"""Input normalization of model/preprocessing.py."""

import torch

from model.preprocessing import INPUT_CONVENTIONS, InputNormalization


def test_imagenet_input_is_torchvisions():
    """(x / 255 - mean) / std, float32, channels_last."""
    image = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((image.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    found = INPUT_CONVENTIONS["imagenet"](image)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_inputs_of_the_reference_implementation():
    """caffe_bgr: BGR minus a mean; unit_rgb: RGB / 255."""
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(
        INPUT_CONVENTIONS["caffe_bgr"](image).flatten(),
        torch.tensor([30 - 73.16, 20 - 82.91, 10 - 72.39]),
    )
    torch.testing.assert_close(
        INPUT_CONVENTIONS["unit_rgb"](image).flatten(), torch.tensor([10, 20, 30]) / 255
    )


def test_mean_padding_is_about_zero_after_normalization():
    """Up to rounding of the mean to an integer; zero padding is black."""
    for normalization in INPUT_CONVENTIONS.values():
        padding = torch.tensor(normalization.padding("mean"), dtype=torch.uint8).view(1, 1, 1, 3)
        std = torch.tensor(normalization.std).view(1, 3, 1, 1)
        assert (normalization(padding).abs() * std <= 0.51).all()
        assert normalization.padding("zero") == (0, 0, 0)


def test_a_normalization_survives_a_checkpoint():
    """from_dict is the inverse of as_dict."""
    for normalization in INPUT_CONVENTIONS.values():
        assert InputNormalization.from_dict(normalization.as_dict()) == normalization
