/** The data layer alone, for Node. */

export { Catalogue } from "./catalogue";
export { fromHalf } from "./codecs";
export { crc32c } from "./crc32c";
export { Geometry } from "./geometry";
export { Problem, setBase } from "./http";
export { Labels, search } from "./labels";
export { liveCaptions } from "./live";
export { columnsOf, maskPaths } from "./masks";
export { neuronpediaPage } from "./published";
export { scaleOf } from "./scale";
export { LatentStore, mapOf } from "./latents";
export { Records } from "./records";
export { Session } from "./session";
export { Store } from "./store";
export { Table } from "./table";
