import { type RemovalPolicy, Validations } from 'aws-cdk-lib';
import { Grant, type IGrantable } from 'aws-cdk-lib/aws-iam';
import { Secret } from 'aws-cdk-lib/aws-secretsmanager';
import { Construct } from 'constructs';

interface Props {
  readonly removalPolicy: RemovalPolicy;
}

/** The secret that the server and the functions share, and the previous one during a rotation. */
export class WebhookSecret extends Construct {
  readonly secretArn: string;

  constructor(scope: Construct, id: string, props: Props) {
    super(scope, id);
    const secret = new Secret(this, 'Secret', {
      description:
        'ping-muc: the webhook secrets, {"current": "…", "previous": "…"}. In Prosody, each has the prefix whsec_',
      generateSecretString: {
        secretStringTemplate: JSON.stringify({ previous: '' }),
        generateStringKey: 'current',
        // 44 letters and digits are the base64 of 33 bytes, some 262 bits
        passwordLength: 44,
        excludePunctuation: true,
      },
      removalPolicy: props.removalPolicy,
    });
    Validations.of(secret).acknowledge({
      id: 'AwsSolutions-SMG4',
      reason:
        'The XMPP server has the same secret, and AWS cannot change it there. Operators rotate it (docs/operating.md)',
    });
    this.secretArn = secret.secretArn;
  }

  /** Grants reading the value, and nothing else: the CDK's grantRead would also allow DescribeSecret. */
  grantRead(grantee: IGrantable): Grant {
    return Grant.addToPrincipal({
      grantee,
      actions: ['secretsmanager:GetSecretValue'],
      resourceArns: [this.secretArn],
    });
  }
}
