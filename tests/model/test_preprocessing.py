import torch

from model.preprocessing import INPUT_CONVENTIONS, InputNormalization


def test_imagenet_input_is_the_published_formula():
    image = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = ((image.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    found = INPUT_CONVENTIONS["imagenet"](image)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_authors_inputs():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 1, 1, 3)
    torch.testing.assert_close(
        INPUT_CONVENTIONS["caffe_bgr"](image).flatten(),
        torch.tensor([30 - 73.16, 20 - 82.91, 10 - 72.39]),
    )
    torch.testing.assert_close(
        INPUT_CONVENTIONS["unit_rgb"](image).flatten(), torch.tensor([10, 20, 30]) / 255
    )


def test_mean_padding_is_about_zero_to_the_network():
    for normalization in INPUT_CONVENTIONS.values():
        padding = torch.tensor(normalization.padding("mean"), dtype=torch.uint8).view(1, 1, 1, 3)
        assert (
            normalization(padding).abs() * torch.tensor(normalization.std).view(1, 3, 1, 1) <= 0.51
        ).all()
        assert normalization.padding("zero") == (0, 0, 0)


def test_a_checkpoint_can_hold_it():
    for normalization in INPUT_CONVENTIONS.values():
        assert InputNormalization.from_dict(normalization.as_dict()) == normalization
