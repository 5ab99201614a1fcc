"""Convolutional networks on images, real or complex, that know neither physics nor modality."""

from .convolution import ConvolutionBlock
from .images import ImageNetwork
from .unet import UNet

__all__ = ["ConvolutionBlock", "ImageNetwork", "UNet"]
