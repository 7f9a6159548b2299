import { billOfMaterials } from './bill-of-materials.ts';
import { productionPackages } from './packages.ts';

/** Prints the software bill of materials of what is deployed to AWS: `npm run --silent sbom`. */
process.stdout.write(billOfMaterials(productionPackages()));
