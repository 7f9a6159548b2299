import { Secret } from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';

/** The secret that the server and the functions share, and the one before it while it is being rotated. */
export class WebhookSecret extends Construct {
  readonly secret: Secret;

  constructor(scope: Construct, id: string) {
    super(scope, id);
    this.secret = new Secret(this, 'Secret', {
      description: 'ping-muc: the webhook secrets, {"current": "…", "previous": "…"}; Prosody takes each as whsec_…',
      generateSecretString: {
        secretStringTemplate: JSON.stringify({ previous: '' }),
        generateStringKey: 'current',
        // 44 letters and digits are the base64 of 33 bytes: some 262 bits
        passwordLength: 44,
        excludePunctuation: true,
      },
    });
  }
}
