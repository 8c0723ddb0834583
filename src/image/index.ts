// Images: decode, resize, and the values that the vision tower takes.

export { decodeImage, MAX_PIXELS, type Pixels } from './decode.js';
export { pixelValues, resizeImage, type PixelValues } from './pixel-values.js';
export { imageSettings, type ImageSettings } from './settings.js';
